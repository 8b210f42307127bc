/** Behind PgBouncer in transaction mode a store works, and leaves its sessions as it found them. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, factsOf, makeAgentId, makeStats } from "./conformance/StoreSuite.ts"
import * as PgBouncer from "./support/PgBouncer.ts"
import * as Postgres from "./support/Postgres.ts"

const time = 1_700_000_000_000

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("Behind PgBouncer", (it) => {
  for (const prepare of [true, false]) {
    it.effect.skipIf(PgBouncer.version === undefined)(
      `rows are written and refused, and no session stays in a transaction; prepared statements: ${prepare}`,
      () =>
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const table = `facts_${prepare}`
          yield* sql.unsafe(
            `CREATE TABLE ${table} (LIKE workspace_agent_metadata INCLUDING ALL, CHECK (value <> 'bad'))`
          )
          const pooler = yield* PgBouncer.make((yield* EmbeddedPostgres.EmbeddedPostgres).config)
          const client = yield* Postgres.makeClient({ ...pooler, prepare, maxConnections: 8 })
          const store = yield* Effect.provideService(
            PgStore.make({ metadataTable: table }),
            PgClient.PgClient,
            client
          )
          // The application's own statements go through the same few sessions.
          const application = yield* Postgres.makeClient({ ...pooler, prepare, maxConnections: 8 })
          const agents = Array.from({ length: 40 }, makeAgentId)

          const results = yield* Effect.forEach(
            agents,
            (agentId) =>
              store.batchUpdateMetadata(
                batchOf(
                  Array.from(
                    { length: 50 },
                    (_, key) => [agentId, `${key}`, key === 7 ? "bad" : "", time] as const
                  )
                )
              ),
            { concurrency: 8 }
          ).pipe(
            Effect.zip(
              Effect.forEach(
                Array.from({ length: 400 }, (_, n) => n),
                (n) => application`SELECT ${n}::int AS n`,
                { concurrency: 8 }
              ),
              { concurrent: true }
            ),
            Effect.map(([results]) => results)
          )
          for (const { changed, refused } of results) {
            assert.deepStrictEqual([changed, refused.map(({ position }) => position)], [49, [7]])
          }
          const stats = Array.from({ length: 20 }, () => makeStats())
          assert.strictEqual((yield* store.batchInsertStats(stats)).changed, 20)
          assert.strictEqual(Object.keys(yield* factsOf(store, agents[0] ?? makeAgentId())).length, 49)
          assert.deepStrictEqual(
            yield* sql`SELECT state FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`,
            []
          )
          assert.deepStrictEqual(
            yield* Effect.forEach(Array.from({ length: 8 }), () => application`SHOW lock_timeout`),
            Array.from({ length: 8 }, () => [{ lock_timeout: "0" }])
          )
        })
    )
  }
})
