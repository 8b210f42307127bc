/** A statistics table that is partitioned by time: no row doubled, none missing. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as PgStore from "../src/PgStore.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const january = DateTime.makeUnsafe("2026-01-15T00:00:00Z")
const february = DateTime.makeUnsafe("2026-02-15T00:00:00Z")
const june = DateTime.makeUnsafe("2026-06-15T00:00:00Z")

/** As TimescaleDB wants it: every unique index contains the time. */
const makePartitioned = (name: string, more = "") =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    yield* sql.unsafe(`CREATE TABLE ${name} (LIKE workspace_agent_stats INCLUDING DEFAULTS,
      PRIMARY KEY (id, created_at)${more}) PARTITION BY RANGE (created_at)`)
    for (const month of [1, 2]) {
      yield* sql.unsafe(`CREATE TABLE ${name}_${month} PARTITION OF ${name}
        FOR VALUES FROM ('2026-0${month}-01') TO ('2026-0${month + 1}-01')`)
    }
    return yield* PgStore.make({ statsTable: name })
  })

const idsIn = (table: string) =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const rows = yield* sql.unsafe<{ readonly id: string }>(`SELECT id FROM ${table} ORDER BY id`)
    return rows.map(({ id }) => id)
  })

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "Partitioned statistics",
  (it) => {
    it.effect("are appended once, however often they are written", () =>
      Effect.gen(function* () {
        const store = yield* makePartitioned("stats_once")
        const rows = Array.from({ length: 100 }, (_, n) =>
          makeStats({ createdAt: n % 2 === 0 ? january : february })
        )
        for (const batch of [rows.slice(0, 60), rows, rows.slice(30)]) {
          assert.deepStrictEqual(yield* store.batchInsertStats(batch), {
            changed: batch.length,
            superseded: [],
            missing: [],
            refused: []
          })
        }
        assert.deepStrictEqual(yield* idsIn("stats_once"), rows.map(({ id }) => id).sort())
      })
    )

    it.effect("that break a constraint are named", () =>
      Effect.gen(function* () {
        const store = yield* makePartitioned("stats_checked", ", CONSTRAINT few CHECK (connection_count < 9)")
        const rows = [
          makeStats({ createdAt: january }),
          makeStats({ createdAt: january, connectionCount: 9n })
        ]
        assert.deepStrictEqual((yield* store.batchInsertStats(rows)).refused, [
          { position: 1, why: 'SQLSTATE 23514, constraint "few", table "stats_checked"' }
        ])
      })
    )

    it.effect("for which there is no partition are Rejected, and nothing of the batch is written", () =>
      Effect.gen(function* () {
        const store = yield* makePartitioned("stats_june")
        const write = store.batchInsertStats([
          makeStats({ createdAt: january }),
          makeStats({ createdAt: june })
        ])
        assert.strictEqual((yield* Effect.flip(write)).reason._tag, "Rejected")
        assert.deepStrictEqual(yield* idsIn("stats_june"), [])
      })
    )

    it.effect("that another unique index refuses are not taken for written", () =>
      Effect.gen(function* () {
        const store = yield* makePartitioned("stats_unique", ", UNIQUE (agent_id, created_at)")
        const row = makeStats({ createdAt: january })
        yield* store.batchInsertStats([row])
        const write = store.batchInsertStats([makeStats({ createdAt: january, agentId: row.agentId })])
        assert.strictEqual((yield* Effect.flip(write)).reason._tag, "Rejected")
      })
    )

    it.effect("without any unique index on the id are Unavailable, and the error says so", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE stats_bare (LIKE workspace_agent_stats)`
        const store = yield* PgStore.make({ statsTable: "stats_bare" })
        const { reason } = yield* Effect.flip(store.batchInsertStats([makeStats()]))
        assert.strictEqual(
          reason.message,
          'the store is unavailable: "stats_bare" has no unique index on its id'
        )
        yield* sql`ALTER TABLE stats_bare ADD UNIQUE (id)`
        assert.strictEqual((yield* store.batchInsertStats([makeStats()])).changed, 1)
      })
    )
  }
)
