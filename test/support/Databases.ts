/** A server with a database of its own for each that asks, as an address in `DATABASE_URL`. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as SqlClient from "effect/sql/SqlClient"
import { EmbeddedPostgres } from "../../src/app/EmbeddedPostgres.ts"
import * as Postgres from "./Postgres.ts"
import * as SharedPostgres from "./SharedPostgres.ts"

export const make = () => {
  const runtime = ManagedRuntime.make(Layer.provideMerge(Postgres.layerClient(), SharedPostgres.layerServer))
  return {
    /** The address of an empty database. */
    create: () =>
      runtime.runPromise(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const { config } = yield* EmbeddedPostgres
          const name = `d_${crypto.randomUUID().replaceAll("-", "")}`
          yield* sql`CREATE DATABASE ${sql(name)} TEMPLATE template0`
          return Postgres.urlOf({ ...config, database: name })
        })
      ),
    [Symbol.asyncDispose]: () => runtime.dispose()
  }
}
