/**
 * A database of its own on the server that test files share, for all that
 * neither stops the server nor changes it, nor asks what goes on in other
 * databases. In the place of `Postgres.layer`, and of `Postgres.layerServer`.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlError } from "effect/sql/SqlError"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as Postgres from "./Postgres.ts"
import { migrated } from "./Servers.ts"

const address: Effect.Effect<Pick<PgClient.PgPoolConfig, "host" | "port">> = Effect.map(
  Postgres.ask("sharedServer"),
  (answer) => JSON.parse(answer)
)

const notHere = Effect.die(new Error("others use this server, too: take Postgres.layer"))

const make = (copied: string) =>
  Effect.gen(function* () {
    const config = { ...(yield* address), username: "postgres", database: "postgres" }
    const database = `d_${crypto.randomUUID().replaceAll("-", "")}`
    const asAdmin = (run: (sql: PgClient.PgClient) => Effect.Effect<unknown, SqlError>) =>
      Effect.orDie(Effect.provide(Effect.flatMap(PgClient.PgClient, run), PgClient.layer(config)))
    yield* Effect.acquireRelease(
      asAdmin((sql) => sql`CREATE DATABASE ${sql(database)} TEMPLATE ${sql(copied)}`),
      () => asAdmin((sql) => sql`DROP DATABASE ${sql(database)} WITH (FORCE)`)
    )
    return EmbeddedPostgres.EmbeddedPostgres.of({
      config: { ...config, database },
      processId: notHere,
      start: notHere,
      stop: () => notHere,
      killBackend: () => notHere
    })
  })

/** An empty database. */
export const layerServer = Layer.effect(EmbeddedPostgres.EmbeddedPostgres, make("template0"))

/** A database with the tables, and a client of it. */
export const layer = Layer.provideMerge(
  Postgres.layerClient(),
  Layer.effect(EmbeddedPostgres.EmbeddedPostgres, make(migrated))
)
