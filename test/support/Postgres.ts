/**
 * A PostgreSQL server for a test file. Each file that asks for one has its own,
 * half a second after asking, so that none sees another's tables, load or
 * outages, and a file that needs none pays nothing.
 *
 * `layer` is a client of a migrated database; `layerServer` the server alone,
 * which a test may stop, start and crash. Both need the real clock:
 *
 * ```ts
 * layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("…", (it) => { … })
 * ```
 */
import * as Net from "node:net"
import { text } from "node:stream/consumers"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { inject, type ProvidedContext } from "vitest"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"

/** What the run's `Servers` answer. */
export const ask = (socket: keyof ProvidedContext): Effect.Effect<string> =>
  Effect.promise(() => text(Net.connect(inject(socket))))

/** A server without durability: a test's data outlives no crash of the machine. */
export const makeServer = Effect.flatMap(ask("serverTemplate"), (template) =>
  EmbeddedPostgres.make({ template, settings: { fsync: "off" } })
)

export const layerServer = Layer.effect(EmbeddedPostgres.EmbeddedPostgres, makeServer)

/** A client of the server in context, as the superuser. */
export const layerClient = EmbeddedPostgres.layerClient

/** A server of its own, a client of it, and the tables. */
export const layer = PgMigrations.layer().pipe(
  Layer.provideMerge(layerClient()),
  Layer.provideMerge(layerServer)
)

/** One more client of the server in context, with a pool of its own. */
export const makeClient = (options?: Partial<PgClient.PgPoolConfig>) =>
  Effect.map(Layer.build(layerClient(options)), (context) => Context.get(context, PgClient.PgClient))

/** The address of a database, for a process that is given one. */
export const urlOf = ({ database, host }: Pick<PgClient.PgPoolConfig, "database" | "host">): string =>
  `postgres://postgres@localhost/${database}?host=${host}`
