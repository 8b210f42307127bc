import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import { assert, layer } from "@effect/vitest"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import { faultsOf, partitionFrom, retentionSoak } from "../scripts/soak/retention.ts"
import * as PgMigrations from "../src/PgMigrations.ts"
import * as PgRetention from "../src/PgRetention.ts"
import * as RetentionMetrics from "../src/RetentionMetrics.ts"
import { makeAgentId } from "./support/Fakes.ts"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const floats = (values: ReadonlyArray<number>) => Result.getOrThrow(PgTypes.array(values, PgTypes.OID.float8))

/** Without rests, where they are not what is tested. */
const atOnce = { share: 1 } as const

/** Rows of statistics of these ages in hours, into a table of its own; returns its name. */
const statsTable = Effect.fnUntraced(function* (ages: ReadonlyArray<number>, constraint = "") {
  const sql = yield* PgClient.PgClient
  const table = `s_${crypto.randomUUID().replaceAll("-", "")}`
  yield* sql.unsafe(`CREATE TABLE ${table} (LIKE workspace_agent_stats INCLUDING ALL${constraint})`)
  yield* insertStats(table, ages)
  return table
})

const insertStats = (table: string, ages: ReadonlyArray<number>) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    sql.unsafe(
      `INSERT INTO ${table} (id, created_at, user_id, agent_id, workspace_id, template_id)
       SELECT gen_random_uuid(), now() - h * interval '1 hour', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
       FROM unnest($1::float8[]) AS h`,
      [floats(ages)]
    )
  )

/** The ages of the rows in whole hours, youngest first. */
const agesIn = (table: string) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    Effect.map(
      sql.unsafe<{ age: number }>(
        `SELECT floor(extract(epoch FROM now() - created_at) / 3600)::int AS age FROM ${table} ORDER BY 1`
      ),
      (rows) => rows.map(({ age }) => age)
    )
  )

/** Facts of agents, each with the ages of its facts in days; returns the table's name and the ids. */
const metadataTable = Effect.fnUntraced(function* (agents: ReadonlyArray<ReadonlyArray<number>>) {
  const sql = yield* PgClient.PgClient
  const table = `m_${crypto.randomUUID().replaceAll("-", "")}`
  yield* sql.unsafe(`CREATE TABLE ${table} (LIKE workspace_agent_metadata INCLUDING ALL)`)
  const ids = agents.map(makeAgentId)
  for (const [agent, ages] of agents.entries()) {
    yield* sql.unsafe(
      `INSERT INTO ${table} SELECT $1::uuid, 'key ' || n, '', '', now() - d * interval '1 day'
       FROM unnest($2::float8[]) WITH ORDINALITY AS f(d, n)`,
      [ids[agent], floats(ages)]
    )
  }
  return { table, ids }
})

/** How many facts each agent has left. */
const factsIn = ({ ids, table }: { readonly table: string; readonly ids: ReadonlyArray<string> }) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    Effect.map(
      sql.unsafe<{ count: number }>(
        `SELECT count(t.key)::int AS count FROM unnest($1::text[]) WITH ORDINALITY AS i(id, n)
         LEFT JOIN ${table} AS t ON t.workspace_agent_id = i.id::uuid GROUP BY n ORDER BY n`,
        [ids as Array<string>]
      ),
      (rows) => rows.map(({ count }) => count)
    )
  )

const until = <A, E, R>(effect: Effect.Effect<A, E, R>, isSo: (answer: A) => boolean) =>
  Effect.repeat(effect, { until: isSo, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeout("30 seconds")
  )

/** Counts the rows of each statement that deletes from a table, and may make it slow. */
const watchDeletes = Effect.fnUntraced(function* (table: string, seconds = "0") {
  const sql = yield* PgClient.PgClient
  yield* sql.unsafe(`CREATE TABLE ${table}_log (n serial, rows int)`)
  yield* sql.unsafe(`CREATE FUNCTION ${table}_f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO ${table}_log (rows) SELECT count(*) FROM gone; PERFORM pg_sleep(${seconds}); RETURN NULL; END $$`)
  yield* sql.unsafe(`CREATE TRIGGER watch AFTER DELETE ON ${table} REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION ${table}_f()`)
  return Effect.map(sql.unsafe<{ rows: number }>(`SELECT rows FROM ${table}_log ORDER BY n`), (log) =>
    log.map(({ rows }) => rows)
  )
})

const hours = (count: number, from = 0) => Array.from({ length: count }, (_, hour) => from + hour)

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("PgRetention", (it) => {
  it.effect("deletes the statistics that are older than told, and no others", () =>
    Effect.gen(function* () {
      const table = yield* statsTable([0, 1, 23.9, 24.1, 25, 1_000])
      const removed = yield* PgRetention.run({ ...atOnce, stats: "1 day", statsTable: table })
      assert.deepStrictEqual(removed, { stats: 3, metadata: 0, droppedPartitions: 0, madePartitions: 0 })
      assert.deepStrictEqual(yield* agesIn(table), [0, 1, 23])
    })
  )

  it.effect("deletes the facts of agents of which nothing is young, and no fact of others", () =>
    Effect.gen(function* () {
      const metadata = yield* metadataTable([[0, 0], [40, 29], [40, 31, 500], [29, 40], [30.1]])
      const removed = yield* PgRetention.run({
        ...atOnce,
        agentsUnseen: "30 days",
        metadataTable: metadata.table
      })
      assert.strictEqual(removed.metadata, 4)
      assert.deepStrictEqual(yield* factsIn(metadata), [2, 2, 0, 2, 0])
    })
  )

  it.effect("finds every unseen agent, whatever the size of a page", () =>
    Effect.gen(function* () {
      for (const batchSize of [1, 2, 3, 100]) {
        const metadata = yield* metadataTable(
          hours(13).map((agent) => (agent % 3 === 0 ? [0, 50] : [50, 50]))
        )
        yield* PgRetention.run({
          ...atOnce,
          agentsUnseen: "30 days",
          metadataTable: metadata.table,
          batchSize
        })
        assert.deepStrictEqual(
          yield* factsIn(metadata),
          hours(13).map((agent) => (agent % 3 === 0 ? 2 : 0))
        )
      }
    })
  )

  it.effect("does nothing unless told to", () =>
    Effect.gen(function* () {
      const noDatabase = new Proxy({} as PgClient.PgClient, {
        get: () => {
          throw new Error("used the database")
        }
      })
      yield* Effect.provideService(
        Effect.andThen(PgRetention.run({}), Effect.scoped(Layer.build(PgRetention.layer({})))),
        PgClient.PgClient,
        noDatabase
      )
    })
  )

  it.effect("refuses nonsense when the layer is built, and names the option", () =>
    Effect.gen(function* () {
      const nonsense: ReadonlyArray<PgRetention.Options> = [
        { stats: 0 },
        { stats: Number.NaN },
        { stats: "Infinity" },
        { agentsUnseen: -1 },
        { batchSize: 0 },
        { batchSize: 1.5 },
        { share: 0 },
        { share: 1.1 },
        { share: Number.NaN },
        { maxStatementTime: 0 },
        { interval: 0 },
        { partitionsAhead: -1 },
        { metricsPrefix: "1" }
      ]
      for (const options of nonsense) {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(PgRetention.layer(options))))
        assert.strictEqual(error.option, Object.keys(options)[0])
      }
    })
  )

  it.effect("takes no more rows than batchSize in a statement", () =>
    Effect.gen(function* () {
      const table = yield* statsTable(hours(25, 100))
      const deletes = yield* watchDeletes(table)
      yield* PgRetention.run({ ...atOnce, stats: "1 day", statsTable: table, batchSize: 10 })
      assert.deepStrictEqual(yield* deletes, [10, 10, 5])
      const metadata = yield* metadataTable([Array.from({ length: 25 }, () => 50)])
      const ofAgents = yield* watchDeletes(metadata.table)
      yield* PgRetention.run({
        ...atOnce,
        agentsUnseen: "1 day",
        metadataTable: metadata.table,
        batchSize: 10
      })
      assert.deepStrictEqual(yield* ofAgents, [10, 10, 5])
    })
  )

  it.effect("takes fewer rows at a time while the server is slow", () =>
    Effect.gen(function* () {
      const table = yield* statsTable(hours(300, 100))
      const deletes = yield* watchDeletes(table, "0.002 * (SELECT count(*) FROM gone)")
      yield* PgRetention.run({ ...atOnce, stats: "1 day", statsTable: table, maxStatementTime: 100 })
      assert.deepStrictEqual((yield* deletes).slice(0, 3), [125, 62, 31])
    })
  )

  it.effect("rests so long that statements take no more than their share", () =>
    Effect.gen(function* () {
      const table = yield* statsTable(hours(20, 100))
      const deletes = yield* watchDeletes(table, "0.02")
      const start = performance.now()
      yield* PgRetention.run({ stats: "1 day", statsTable: table, batchSize: 10, share: 0.1 })
      // Two statements of at least 20 ms that delete, each a tenth of its time.
      assert.isAtLeast((performance.now() - start) / 1_000, 2 * 0.2)
      assert.deepStrictEqual((yield* deletes).slice(0, 2), [10, 10])
    })
  )

  it.effect("is done by one replica at a time, and the lock goes with each statement", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const table = yield* statsTable([100])
      const metadata = yield* metadataTable([[100]])
      const deletes = yield* watchDeletes(table, "0.3")
      const one = { ...atOnce, stats: "1 day", statsTable: table } as const
      const locks = Effect.map(
        sql<{
          count: number
        }>`SELECT count(*)::int AS count FROM pg_locks JOIN pg_database d ON d.oid = database
          WHERE locktype = 'advisory' AND datname = current_database()`,
        ([row]) => row?.count ?? 0
      )
      // It lagged when it last had its turn, which has to be forgotten: the other one tells now.
      const { lag } = RetentionMetrics.make({ prefix: "other" })
      yield* Metric.update(lag, 4_000)
      const other = until(locks, (count) => count > 0).pipe(
        Effect.andThen(PgRetention.run({ ...one, metricsPrefix: "other" }))
      )
      const [first, second] = yield* Effect.all([PgRetention.run(one), other], { concurrency: 2 })
      assert.deepStrictEqual([first.stats, second.stats], [1, 0])
      assert.strictEqual((yield* Metric.value(lag)).value, 0)
      assert.deepStrictEqual(
        (yield* deletes).filter((rows) => rows > 0),
        [1]
      )
      assert.strictEqual(yield* locks, 0)
      // The other table has a lock of its own.
      yield* PgRetention.run({ ...atOnce, agentsUnseen: "1 day", metadataTable: metadata.table })
      assert.deepStrictEqual(yield* factsIn(metadata), [0])
    })
  )

  it.effect.each(["stats", "metadata"] as const)("of %s is left to whoever holds the lock", (what) =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const stats = yield* statsTable([100])
      const metadata = yield* metadataTable([[100]])
      const table = what === "stats" ? stats : metadata.table
      const age = what === "stats" ? { stats: "1 day" } : ({ agentsUnseen: "1 day" } as const)
      const run = PgRetention.run({
        ...atOnce,
        ...(age as Partial<PgRetention.Options>),
        statsTable: stats,
        metadataTable: metadata.table
      })
      const removed = yield* Effect.andThen(
        sql.unsafe("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", [
          `effect-metadata-batcher retention of "${table}"`
        ]),
        Effect.provideService(run, PgClient.PgClient, yield* Postgres.makeClient())
      ).pipe(sql.withTransaction)
      assert.deepInclude(removed, { stats: 0, metadata: 0 })
      assert.deepInclude(yield* run, { [what]: 1 })
    })
  )

  it.effect("tells how old the oldest row is that should be gone", () =>
    Effect.gen(function* () {
      const table = yield* statsTable(hours(30, 100))
      yield* watchDeletes(table, "0.2")
      const { lag } = RetentionMetrics.make({ prefix: "lagging" })
      const running = yield* Effect.forkChild(
        PgRetention.run({
          ...atOnce,
          stats: "1 day",
          statsTable: table,
          batchSize: 10,
          metricsPrefix: "lagging"
        })
      )
      yield* until(Metric.value(lag), ({ value }) => value > 70 * 3_600)
      yield* Fiber.join(running)
      assert.strictEqual((yield* Metric.value(lag)).value, 0)
    })
  )

  it.effect("finds within an hour what came late, older than what was deleted before", () =>
    Effect.gen(function* () {
      const table = yield* statsTable([0, 100])
      const clock = yield* Clock.Clock
      let offset = 0
      const moved: Clock.Clock = Object.assign(Object.create(clock) as Clock.Clock, {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + offset
      })
      yield* Layer.build(
        PgRetention.layer({ ...atOnce, stats: "1 day", statsTable: table, interval: 20 })
      ).pipe(
        Effect.andThen(until(agesIn(table), (ages) => ages.length === 1)),
        Effect.andThen(insertStats(table, [200])),
        Effect.andThen(
          Effect.sync(() => {
            offset = 3_600_001
          })
        ),
        Effect.andThen(until(agesIn(table), (ages) => ages.length === 1)),
        Effect.scoped,
        Effect.provideService(Clock.Clock, moved)
      )
    })
  )

  it.effect("passes over an agent that comes back at this moment, and waits for nobody", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const metadata = yield* metadataTable([[50], [50, 50]])
      const run = PgRetention.run({ ...atOnce, agentsUnseen: "1 day", metadataTable: metadata.table })
      yield* Effect.andThen(
        sql.unsafe(`UPDATE ${metadata.table} SET collected_at = now() WHERE workspace_agent_id = $1::uuid`, [
          metadata.ids[0]
        ]),
        Effect.provideService(run, PgClient.PgClient, yield* Postgres.makeClient())
      ).pipe(sql.withTransaction, Effect.timeout("5 seconds"))
      assert.deepStrictEqual(yield* factsIn(metadata), [1, 0])
    })
  )

  it.effect("deletes nothing young for an application whose clock is ahead", () =>
    Effect.gen(function* () {
      const table = yield* statsTable([0, 1, 30])
      const metadata = yield* metadataTable([[0], [50]])
      const clock = yield* Clock.Clock
      const ahead: Clock.Clock = Object.assign(Object.create(clock) as Clock.Clock, {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + 10 * 365 * 86_400_000
      })
      yield* PgRetention.run({
        ...atOnce,
        stats: "1 day",
        statsTable: table,
        agentsUnseen: "30 days",
        metadataTable: metadata.table
      }).pipe(Effect.provideService(Clock.Clock, ahead))
      assert.deepStrictEqual(yield* agesIn(table), [0, 1])
      assert.deepStrictEqual(yield* factsIn(metadata), [1, 0])
    })
  )

  it.effect("works where the metadata is partitioned by agent", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const whole = yield* metadataTable(hours(20).map((agent) => (agent % 2 === 0 ? [0, 50] : [50, 50])))
      const table = `${whole.table}_by_agent`
      yield* sql.unsafe(
        `CREATE TABLE ${table} (LIKE ${whole.table} INCLUDING INDEXES) PARTITION BY HASH (workspace_agent_id)`
      )
      for (const part of hours(4)) {
        yield* sql.unsafe(
          `CREATE TABLE ${table}_${part} PARTITION OF ${table} FOR VALUES WITH (MODULUS 4, REMAINDER ${part})`
        )
      }
      yield* sql.unsafe(`INSERT INTO ${table} SELECT * FROM ${whole.table}`)
      yield* PgRetention.run({ ...atOnce, agentsUnseen: "30 days", metadataTable: table, batchSize: 7 })
      assert.deepStrictEqual(
        yield* factsIn({ table, ids: whole.ids }),
        hours(20).map((agent) => (agent % 2 === 0 ? 2 : 0))
      )
    })
  )

  it.effect("goes on for as long as the scope is open, through failures that it counts", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const table = yield* statsTable([0, 100])
      yield* sql.unsafe(`ALTER TABLE ${table} RENAME TO ${table}_away`)
      const warnings: Array<string> = []
      const logger = Logger.make<unknown, void>(({ message }) => {
        warnings.push(String(message))
      })
      const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()
      const failures = Metric.withAttributes(RetentionMetrics.make({ prefix: "p" }).failures, {
        table: "stats"
      })
      const options = {
        ...atOnce,
        stats: "1 day",
        statsTable: table,
        interval: 20,
        metricsPrefix: "p"
      } as const
      yield* Layer.build(PgRetention.layer(options)).pipe(
        Effect.andThen(until(Metric.value(failures), ({ count }) => count >= 2)),
        Effect.andThen(sql.unsafe(`ALTER TABLE ${table}_away RENAME TO ${table}`)),
        Effect.andThen(until(agesIn(table), (ages) => ages.length === 1)),
        Effect.andThen(insertStats(table, [50])),
        Effect.andThen(until(agesIn(table), (ages) => ages.length === 1)),
        Effect.scoped,
        Effect.provideService(Metric.MetricRegistry, registry),
        Effect.provide(Logger.layer([logger]))
      )
      // And no longer: another's passes say how much time has passed.
      yield* insertStats(table, [50])
      const other = yield* statsTable([0, 100])
      yield* Layer.build(PgRetention.layer({ ...options, statsTable: other, metricsPrefix: "q" })).pipe(
        Effect.andThen(until(agesIn(other), (ages) => ages.length === 1)),
        Effect.andThen(insertStats(other, [50])),
        Effect.andThen(until(agesIn(other), (ages) => ages.length === 1)),
        Effect.scoped
      )
      assert.deepStrictEqual(yield* agesIn(table), [0, 50])
      assert.deepStrictEqual(warnings, ["could not delete what is too old: SQLSTATE 42P01"])
    })
  )

  it.effect("counts what it deletes, by table", () =>
    Effect.gen(function* () {
      const table = yield* statsTable([0, 100, 200])
      const metadata = yield* metadataTable([[50], [0]])
      const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()
      const { deletedRows, statementDuration } = RetentionMetrics.make({ prefix: "agentapi" })
      yield* Effect.gen(function* () {
        yield* PgRetention.run({
          ...atOnce,
          stats: "1 day",
          statsTable: table,
          agentsUnseen: "1 day",
          metadataTable: metadata.table
        })
        const count = (table: string) => Metric.value(Metric.withAttributes(deletedRows, { table }))
        assert.strictEqual((yield* count("stats")).count, 2)
        assert.strictEqual((yield* count("metadata")).count, 1)
        const statements = yield* Metric.value(Metric.withAttributes(statementDuration, { table: "stats" }))
        assert.strictEqual(statements.count, 1)
      }).pipe(Effect.provideService(Metric.MetricRegistry, registry))
    })
  )

  for (const partitioned of [false, true]) {
    it.effect(
      `keeps the tables as large as they are, day for day${partitioned ? ", by partitions" : ""}`,
      () =>
        Effect.gen(function* () {
          const server = yield* Postgres.makeClient()
          const database = `days_${partitioned}`
          yield* server.unsafe(`CREATE DATABASE ${database}`)
          const lives = { days: 12, statsPerDay: 2_000, agents: 100 }
          const lived = yield* PgMigrations.run({ partitioned }).pipe(
            Effect.andThen(partitioned ? partitionFrom(lives.days) : Effect.void),
            Effect.andThen(retentionSoak(lives)),
            Effect.provide(Postgres.layerClient({ database }))
          )
          assert.deepStrictEqual(faultsOf(lived, lives), [])
        })
    )
  }
})
