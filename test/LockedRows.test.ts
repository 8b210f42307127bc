/** What a row that another transaction has locked costs the other rows of a batch: one lock timeout. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, factsOf, makeAgentId, makeStats } from "./conformance/StoreSuite.ts"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"
import * as Spans from "./support/Spans.ts"

const time = 1_700_000_000_000
const keys = Array.from({ length: 100 }, (_, key) => `key ${key}`)

/** Runs SQL in a transaction that stays open as long as the scope. */
const inOpenTransaction = (text: string) =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const connection = yield* sql.reserve
    yield* connection.executeRaw("BEGIN", [])
    yield* Effect.addFinalizer(() => Effect.orDie(connection.executeRaw("ROLLBACK", [])))
    yield* connection.executeRaw(text, [])
  })

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "Locked rows on PostgreSQL",
  (it) => {
    it.effect.each([{ onlyExisting: false }, { onlyExisting: true }])(
      "are named, and the others are written: %o",
      (options) =>
        Effect.gen(function* () {
          const store = yield* PgStore.make({ ...options, lockTimeout: "100 millis" })
          const upsert = yield* PgStore.make()
          const agentId = makeAgentId()
          const batch = (at: number) => batchOf(keys.map((key) => [agentId, key, `${at}`, time + at]))
          yield* upsert.batchUpdateMetadata(batch(0))
          const result = yield* Effect.scoped(
            Effect.andThen(
              inOpenTransaction(`SELECT FROM workspace_agent_metadata
              WHERE workspace_agent_id = '${agentId}' AND key IN ('key 7', 'key 70') FOR UPDATE`),
              store.batchUpdateMetadata(batch(1))
            )
          )
          assert.strictEqual(result.changed, 98)
          assert.deepStrictEqual(result.refused, [
            { position: 7, why: "SQLSTATE 55P03, the row is locked" },
            { position: 70, why: "SQLSTATE 55P03, the row is locked" }
          ])
          const facts = yield* factsOf(upsert, agentId)
          assert.deepStrictEqual(
            Object.keys(facts)
              .filter((key) => facts[key]?.[0] === "0")
              .sort(),
            ["key 7", "key 70"]
          )
          assert.strictEqual((yield* store.batchUpdateMetadata(batch(2))).changed, 100)
        })
    )

    it.effect(
      "that are not committed yet, and so cannot be seen, fail the batch as Rejected and leave no trace",
      () =>
        Effect.gen(function* () {
          const store = yield* PgStore.make({ lockTimeout: "100 millis" })
          const agentId = makeAgentId()
          const { reason } = yield* Effect.scoped(
            Effect.andThen(
              inOpenTransaction(
                `INSERT INTO workspace_agent_metadata VALUES ('${agentId}', 'key 7', '', '', now())`
              ),
              Effect.flip(store.batchUpdateMetadata(batchOf(keys.map((key) => [agentId, key, "", time]))))
            )
          )
          assert.strictEqual(reason._tag, "Rejected")
          assert.include(reason.message, "SQLSTATE 55P03")
          assert.deepStrictEqual(yield* factsOf(store, agentId), {})
        })
    )

    it.effect("cost a batch of statistics no more: a parent that is locked is Rejected", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE parents (id uuid PRIMARY KEY)`
        yield* sql`CREATE TABLE children (LIKE workspace_agent_stats INCLUDING ALL,
        FOREIGN KEY (user_id) REFERENCES parents (id))`
        const row = makeStats()
        yield* sql`INSERT INTO parents VALUES (${row.userId})`
        const store = yield* PgStore.make({ statsTable: "children", lockTimeout: "100 millis" })
        const { layer: tracing, spans } = Spans.make()
        // The spans are gone with the layer.
        const { reason, texts } = yield* Effect.flip(store.batchInsertStats([row])).pipe(
          Effect.map(({ reason }) => ({
            reason,
            texts: spans.all().map(({ attributes }) => String(attributes["db.query.text"]))
          })),
          Effect.provide(tracing),
          (write) => Effect.andThen(inOpenTransaction("SELECT FROM parents FOR UPDATE"), write),
          Effect.scoped
        )
        assert.strictEqual(reason._tag, "Rejected")
        // One that waits; then one without rows, to see whether the table is as it should be.
        assert.strictEqual(texts.filter((text) => /^\s*INSERT/.test(text)).length, 2, texts.join("\n"))
        assert.strictEqual((yield* store.batchInsertStats([row])).changed, 1)
      })
    )

    it.effect("are waited for where no timeout is set, and the session's own timeout stays what it was", () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient({ maxConnections: 1 })
        const on = (options: PgStore.Options) =>
          Effect.provideService(PgStore.make(options), PgClient.PgClient, sql)
        const patient = yield* on({ lockTimeout: 0 })
        const agentId = makeAgentId()
        const batch = (at: number) => batchOf([[agentId, "cpu", "", time + at]])
        yield* patient.batchUpdateMetadata(batch(0))
        yield* (yield* on({ lockTimeout: "50 millis" })).batchUpdateMetadata(batch(1))
        assert.deepStrictEqual(yield* sql`SHOW lock_timeout`, [{ lock_timeout: "0" }])
        const writer = yield* Effect.scoped(
          Effect.gen(function* () {
            yield* inOpenTransaction("SELECT FROM workspace_agent_metadata FOR UPDATE")
            const writer = yield* Effect.forkChild(patient.batchUpdateMetadata(batch(2)))
            // Longer than the default of `lockTimeout`.
            const admin = yield* PgClient.PgClient
            yield* admin`SELECT FROM pg_stat_activity
              WHERE wait_event_type = 'Lock' AND datname = current_database()
                AND clock_timestamp() - query_start > '1.1 seconds'`.pipe(
              Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("10 millis") })
            )
            return writer
          })
        )
        assert.strictEqual((yield* Fiber.join(writer)).changed, 1)
      })
    )
  }
)
