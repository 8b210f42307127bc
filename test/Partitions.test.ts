import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as PgMigrations from "../src/PgMigrations.ts"
import * as PgRetention from "../src/PgRetention.ts"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

/** Runs `f` in an empty database of its own. */
const inDatabase = <A, E, R>(f: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const server = yield* Postgres.makeClient()
    const name = `d_${crypto.randomUUID().replaceAll("-", "")}`
    yield* server.unsafe(`CREATE DATABASE ${name}`)
    return yield* Effect.provide(f, Postgres.layerClient({ database: name }))
  })

const insertAt = (...times: ReadonlyArray<string>) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    sql.unsafe(
      `INSERT INTO workspace_agent_stats (id, created_at, user_id, agent_id, workspace_id, template_id)
       SELECT gen_random_uuid(), t, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
       FROM (SELECT ${times.map((time) => `(${time})::timestamptz`).join(" AS t UNION ALL SELECT ")} AS t) AS r`
    )
  )

/** The partitions by name, each with how many rows it holds. */
const partitions = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const names = yield* sql<{ name: string }>`SELECT inhrelid::regclass::text AS name FROM pg_inherits
    WHERE inhparent = 'workspace_agent_stats'::regclass ORDER BY 1`
  const rows: Record<string, number> = {}
  for (const { name } of names) {
    const [row] = yield* sql.unsafe<{ count: number }>(`SELECT count(*)::int AS count FROM ${name}`)
    rows[name] = row?.count ?? Number.NaN
  }
  return rows
})

const sum = (rows: Readonly<Record<string, number>>) => Object.values(rows).reduce((a, b) => a + b, 0)

/** `20261125` of the day that is so many days from now. */
const day = (offset: number) =>
  new Date(Date.now() + offset * 86_400_000).toISOString().slice(0, 10).replaceAll("-", "")

/** Replaces the table by one that others have partitioned. */
const partitionedAs = Effect.fnUntraced(function* (how: string, ...parts: ReadonlyArray<string>) {
  const sql = yield* PgClient.PgClient
  yield* PgMigrations.run()
  yield* sql`ALTER TABLE workspace_agent_stats RENAME TO plain`
  yield* sql.unsafe(`CREATE TABLE workspace_agent_stats (LIKE plain INCLUDING DEFAULTS) PARTITION BY ${how}`)
  yield* sql`CREATE INDEX ON workspace_agent_stats (created_at)`
  for (const part of parts) yield* sql.unsafe(`CREATE TABLE ${part}`)
})

/**
 * What passes come to until so many partitions have been made and dropped. One
 * is put off to the next pass where the server is busy.
 */
const runUntil = Effect.fnUntraced(function* (options: PgRetention.Options, changes: number) {
  let sum: PgRetention.Removed = { stats: 0, metadata: 0, droppedPartitions: 0, madePartitions: 0 }
  for (let pass = 0; pass < 50 && sum.droppedPartitions + sum.madePartitions < changes; pass++) {
    const one = yield* PgRetention.run({ share: 1, ...options })
    sum = {
      stats: sum.stats + one.stats,
      metadata: sum.metadata + one.metadata,
      droppedPartitions: sum.droppedPartitions + one.droppedPartitions,
      madePartitions: sum.madePartitions + one.madePartitions
    }
  }
  return sum
})

layer(SharedPostgres.layerServer, { excludeTestServices: true, timeout: "30 seconds" })(
  "Partitions",
  (it) => {
    it.effect("are made by the migration: one a day for today and three more, and one for the rest", () =>
      inDatabase(
        Effect.gen(function* () {
          yield* PgMigrations.run({ partitioned: true })
          assert.deepStrictEqual(Object.keys(yield* partitions), [
            ...[0, 1, 2, 3].map((offset) => `workspace_agent_stats_${day(offset)}`),
            "workspace_agent_stats_default"
          ])
          yield* insertAt("now()", "now() - interval '1 year'", "now() + interval '1 year'")
          const rows = yield* partitions
          assert.deepStrictEqual(
            [rows[`workspace_agent_stats_${day(0)}`], rows["workspace_agent_stats_default"]],
            [1, 2]
          )
        })
      )
    )

    it.effect("are dropped once all of their rows are too old, and made ahead", () =>
      inDatabase(
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          yield* PgMigrations.run({ partitioned: true })
          for (const offset of [-3, -2, -1]) {
            yield* sql.unsafe(`CREATE TABLE old_${-offset} PARTITION OF workspace_agent_stats
            FOR VALUES FROM ('${day(offset)} 00:00+00') TO ('${day(offset + 1)} 00:00+00')`)
          }
          yield* insertAt(
            "now()",
            "now() - interval '1 day'",
            "now() - interval '2 day'",
            "now() - interval '3 day'"
          )
          const removed = yield* runUntil({ stats: "1 day", partitionsAhead: 5 }, 4)
          assert.deepStrictEqual(removed, { stats: 0, metadata: 0, droppedPartitions: 2, madePartitions: 2 })
          assert.deepStrictEqual(Object.keys(yield* partitions), [
            "old_1",
            ...[0, 1, 2, 3, 4, 5].map((offset) => `workspace_agent_stats_${day(offset)}`),
            "workspace_agent_stats_default"
          ])
          assert.deepStrictEqual(yield* PgRetention.run({ share: 1, stats: "1 day", partitionsAhead: 5 }), {
            stats: 0,
            metadata: 0,
            droppedPartitions: 0,
            madePartitions: 0
          })
          // The new ones have the keys and the indexes of the table.
          const [row] = yield* sql.unsafe<{ count: number }>(
            `SELECT count(*)::int AS count FROM pg_indexes WHERE tablename = 'workspace_agent_stats_${day(5)}'`
          )
          assert.strictEqual(row?.count, 3)
        })
      )
    )

    it.effect("go on after a gap, and rows that came meanwhile go by their age", () =>
      inDatabase(
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          yield* PgMigrations.run({ partitioned: true })
          for (const offset of [0, 1, 2, 3])
            yield* sql.unsafe(`DROP TABLE workspace_agent_stats_${day(offset)}`)
          yield* sql.unsafe(`CREATE TABLE old PARTITION OF workspace_agent_stats
          FOR VALUES FROM ('${day(-41)} 00:00+00') TO ('${day(-40)} 00:00+00')`)
          yield* insertAt("now()", "now() - interval '5 days'", "now() - interval '10 days'")
          const removed = yield* runUntil({ stats: "7 days" }, 4)
          // Today's rows are in the default partition already.
          assert.deepStrictEqual(removed, { stats: 1, metadata: 0, droppedPartitions: 1, madePartitions: 3 })
          assert.deepStrictEqual(Object.keys(yield* partitions), [
            ...[1, 2, 3].map((offset) => `workspace_agent_stats_${day(offset)}`),
            "workspace_agent_stats_default"
          ])
          yield* insertAt("now()")
          assert.strictEqual((yield* partitions)["workspace_agent_stats_default"], 3)
        })
      )
    )

    it.effect(
      "are dropped when nobody works on the table, and no insert waits for longer than that takes",
      () =>
        inDatabase(
          Effect.gen(function* () {
            const sql = yield* PgClient.PgClient
            yield* PgMigrations.run({ partitioned: true })
            yield* sql.unsafe(`CREATE TABLE old PARTITION OF workspace_agent_stats
          FOR VALUES FROM ('${day(-9)} 00:00+00') TO ('${day(-8)} 00:00+00')`)
            const run = PgRetention.run({ share: 1, stats: "1 day" })
            yield* sql.withTransaction(
              Effect.gen(function* () {
                yield* sql`SELECT count(*) FROM workspace_agent_stats`
                const [at] = yield* sql<{ database: string }>`SELECT current_database() AS database`
                const other = yield* Postgres.makeClient({ database: at?.database ?? "" })
                const inOther = Effect.provideService(PgClient.PgClient, other)
                // An insert stands behind whoever waits to drop, for as long as that waits.
                const begun = performance.now()
                const [{ droppedPartitions }] = yield* Effect.all(
                  [inOther(run), inOther(insertAt("now()"))],
                  {
                    concurrency: 2
                  }
                )
                assert.strictEqual(droppedPartitions, 0)
                assert.isBelow(performance.now() - begun, 4_000)
              })
            )
            assert.strictEqual((yield* runUntil({ stats: "1 day" }, 1)).droppedPartitions, 1)
            assert.strictEqual(sum(yield* partitions), 1)
          }).pipe(Effect.scoped)
        )
    )

    it.effect("of months, made by others, go on in months", () =>
      inDatabase(
        Effect.gen(function* () {
          const month = (offset: number) => {
            const now = new Date()
            return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + offset, 1))
              .toISOString()
              .slice(0, 10)
          }
          const part = (offset: number) =>
            `part_${offset + 100} PARTITION OF workspace_agent_stats FOR VALUES FROM ('${month(offset)} 00:00+00') TO ('${month(offset + 1)} 00:00+00')`
          yield* partitionedAs("RANGE (created_at)", part(-3), part(-2), part(-1), part(0))
          yield* insertAt("now()")
          const removed = yield* runUntil({ stats: "40 days", partitionsAhead: 2 }, 3)
          assert.strictEqual(removed.madePartitions, 2)
          assert.isAtLeast(removed.droppedPartitions, 1)
          const made = Object.keys(yield* partitions).filter((name) => name.startsWith("workspace"))
          assert.deepStrictEqual(
            made,
            [1, 2].map((offset) => `workspace_agent_stats_${month(offset).replaceAll("-", "")}`)
          )
        })
      )
    )

    it.effect("that others made without an end are left as they are", () =>
      inDatabase(
        Effect.gen(function* () {
          yield* partitionedAs(
            "RANGE (created_at)",
            `part_1 PARTITION OF workspace_agent_stats FOR VALUES FROM (MINVALUE) TO ('${day(-9)} 00:00+00')`,
            `part_2 PARTITION OF workspace_agent_stats FOR VALUES FROM ('${day(-9)} 00:00+00') TO (MAXVALUE)`
          )
          yield* insertAt("now()")
          const removed = yield* runUntil({ stats: "1 day" }, 1)
          assert.deepStrictEqual(removed, { stats: 0, metadata: 0, droppedPartitions: 1, madePartitions: 0 })
        })
      )
    )

    it.effect("by something else than time lose their old rows, and nothing is dropped", () =>
      inDatabase(
        Effect.gen(function* () {
          yield* partitionedAs(
            "HASH (agent_id)",
            ...[0, 1, 2].map(
              (part) =>
                `part_${part} PARTITION OF workspace_agent_stats FOR VALUES WITH (MODULUS 3, REMAINDER ${part})`
            )
          )
          yield* insertAt(...Array.from({ length: 30 }, (_, n) => `now() - ${n} * interval '1 hour'`))
          const removed = yield* PgRetention.run({ share: 1, stats: "630 minutes", batchSize: 4 })
          assert.deepStrictEqual(removed, { stats: 19, metadata: 0, droppedPartitions: 0, madePartitions: 0 })
          assert.strictEqual(sum(yield* partitions), 11)
        })
      )
    )
  }
)
