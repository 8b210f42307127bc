import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as PgMigrations from "../src/PgMigrations.ts"
import { captureLogs, warnings } from "./support/Logs.ts"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

/** Runs `f` with a client of an empty database of its own. */
const inDatabase = <A, E, R>(name: string, f: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const server = yield* Postgres.makeClient()
    yield* server.unsafe(`CREATE DATABASE ${name}`)
    return yield* Effect.provide(f, Postgres.layerClient({ database: name }))
  })

const tables = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql`SELECT relname AS name, relpersistence AS persistence, reloptions AS options
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`
)

layer(SharedPostgres.layerServer, { excludeTestServices: true, timeout: "30 seconds" })(
  "PgMigrations",
  (it) => {
    it.effect("makes the tables and the indexes their readers need", () =>
      inDatabase(
        "fresh",
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const applied = yield* PgMigrations.run()
          assert.deepStrictEqual(applied, [
            [1, "workspace_agent_metadata"],
            [2, "workspace_agent_stats"],
            [3, "workspace_agent_metadata_fillfactor"]
          ])
          assert.deepStrictEqual(yield* tables, [
            { name: "effect_metadata_batcher_migrations", persistence: "p", options: null },
            { name: "workspace_agent_metadata", persistence: "p", options: ["fillfactor=50"] },
            { name: "workspace_agent_stats", persistence: "p", options: null }
          ])
          const indexes = yield* sql<{ readonly columns: string }>`
          SELECT split_part(indexdef, 'USING ', 2) AS columns FROM pg_indexes
          WHERE tablename IN ('workspace_agent_metadata', 'workspace_agent_stats') ORDER BY 1`
          assert.deepStrictEqual(
            indexes.map(({ columns }) => columns),
            [
              "btree (agent_id, created_at DESC)",
              "btree (created_at)",
              "btree (id)",
              "btree (workspace_agent_id, key)"
            ]
          )
        })
      )
    )

    it.effect("does nothing when it has been run before", () =>
      inDatabase(
        "again",
        Effect.gen(function* () {
          yield* PgMigrations.run()
          assert.deepStrictEqual(yield* PgMigrations.run(), [])
        })
      )
    )

    it.effect("makes the metadata table unlogged, and no other, when told so", () =>
      inDatabase(
        "unlogged",
        Effect.gen(function* () {
          yield* PgMigrations.run({ unlogged: true })
          const persistence = (yield* tables).map((table) => table["persistence"])
          assert.deepStrictEqual(persistence, ["p", "u", "p"])
        })
      )
    )

    it.effect("says in one line that a table without partitions is not converted", () =>
      inDatabase(
        "converted",
        Effect.gen(function* () {
          const warningsOf = Effect.fnUntraced(function* (options: PgMigrations.Options) {
            const [lines, logging] = captureLogs()
            yield* Effect.provide(PgMigrations.run(options), logging)
            return warnings(lines).map(({ message }) => message)
          })
          const partitioned = { partitioned: true, schema: "parts" }
          assert.deepStrictEqual(yield* warningsOf(partitioned), [])
          assert.deepStrictEqual(yield* warningsOf(partitioned), [])
          assert.deepStrictEqual(yield* warningsOf({}), [])
          assert.deepStrictEqual(yield* warningsOf({}), [])
          assert.deepStrictEqual(yield* warningsOf({ partitioned: true }), [
            'PgMigrations: "workspace_agent_stats" is not partitioned and is not converted: only a new table is made in partitions'
          ])
        })
      )
    )

    it.effect("may be run by many processes at the same time", () =>
      inDatabase(
        "together",
        Effect.gen(function* () {
          const runs = yield* Effect.all(
            Array.from({ length: 8 }, () => PgMigrations.run()),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(runs.map((applied) => applied.length).sort(), [0, 0, 0, 0, 0, 0, 0, 3])
        })
      )
    )
  }
)
