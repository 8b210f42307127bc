/**
 * Retention over 100 simulated days, and under full write load.
 *
 *   node scripts/soak/retention.ts [--days <n>] [--seconds <n>]
 *
 * Exits with 1 unless the tables stay as large as they were, no statement took
 * over 100 ms, and writers got on with retention as well as without: at least
 * 0.95 of the rows.
 */
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type { AgentStatsRow } from "../../src/AgentStats.ts"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgRetention from "../../src/PgRetention.ts"
import * as PgStore from "../../src/PgStore.ts"
import * as RetentionMetrics from "../../src/RetentionMetrics.ts"
import { columns } from "../bench/newestWins.ts"
import { makeReports } from "../bench/workload.ts"

const day = 86_400_000

/** How long statistics and unseen agents are kept in the simulated days. */
const statsDays = 2
const agentDays = 5

/** A clock that stands where it is put; the real one goes on sleeping. */
const clockAt = (clock: Clock.Clock, millis: number): Clock.Clock =>
  Object.assign(Object.create(clock) as Clock.Clock, {
    currentTimeMillisUnsafe: () => millis,
    currentTimeMillis: Effect.succeed(millis),
    monotonicTimeNanosUnsafe: () => 0n,
    monotonicTimeNanos: Effect.succeed(0n)
  })

interface Day {
  readonly statsRows: number
  readonly metadataRows: number
  readonly statsBytes: number
  readonly metadataBytes: number
}

/**
 * Lives through the days up to today, each with so many rows of statistics, and
 * agents of which a tenth is replaced by others every day; returns what the
 * tables hold at the end of each. Needs the tables, empty.
 */
export const retentionSoak = Effect.fnUntraced(function* (options: {
  readonly days: number
  readonly statsPerDay: number
  readonly agents: number
}) {
  const { agents, days, statsPerDay } = options
  const sql = yield* PgClient.PgClient
  const clock = yield* Clock.Clock
  const midnight = Math.floor(clock.currentTimeMillisUnsafe() / day) * day

  const live = (start: number, age: number) =>
    Effect.andThen(
      sql.unsafe(
        `INSERT INTO workspace_agent_stats (id, created_at, user_id, agent_id, workspace_id, template_id)
         SELECT gen_random_uuid(), to_timestamp($1::float8 / 1000) + n * interval '1 day' / $2,
           gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
         FROM generate_series(0, $2::int - 1) AS n`,
        [start, statsPerDay]
      ),
      sql.unsafe(
        `INSERT INTO workspace_agent_metadata
         SELECT md5((n + $2::int * ($3::int / 10))::text)::uuid, 'key ' || k, repeat('x', 20), '',
           to_timestamp($1::float8 / 1000)
         FROM generate_series(0, $3::int - 1) AS n, generate_series(1, 10) AS k
         ON CONFLICT (workspace_agent_id, key) DO UPDATE SET collected_at = excluded.collected_at`,
        [start, age, agents]
      )
    )

  const look = Effect.map(
    sql.unsafe<Day>(`SELECT (SELECT count(*)::int FROM workspace_agent_stats) AS "statsRows",
      (SELECT count(*)::int FROM workspace_agent_metadata) AS "metadataRows",
      coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('workspace_agent_stats')),
        pg_total_relation_size('workspace_agent_stats'))::float8 AS "statsBytes",
      pg_total_relation_size('workspace_agent_metadata')::float8 AS "metadataBytes"`),
    ([row]) => row as Day
  )

  const lived: Array<Day> = []
  for (let age = 0; age < days; age++) {
    const start = midnight - (days - age) * day
    yield* live(start, age)
    // A pass leaves what is locked just then to the next one, of which a day has many.
    for (let pass = 0; pass < 3; pass++) {
      yield* Effect.provideService(
        PgRetention.run({ stats: statsDays * day, agentsUnseen: agentDays * day }),
        Clock.Clock,
        clockAt(clock, start + day)
      )
    }
    // Autovacuum has a whole day for it.
    for (const table of ["workspace_agent_stats", "workspace_agent_metadata"])
      yield* sql.unsafe(`VACUUM ${table}`)
    lived.push(yield* look)
  }
  return lived
})

/** Begins the series of partitions where the simulated days begin, not today. */
export const partitionFrom = Effect.fnUntraced(function* (days: number) {
  const sql = yield* PgClient.PgClient
  const names = yield* sql<{ name: string }>`SELECT inhrelid::regclass::text AS name FROM pg_inherits
    WHERE inhparent = 'workspace_agent_stats'::regclass`
  for (const { name } of names) if (!name.endsWith("_default")) yield* sql.unsafe(`DROP TABLE ${name}`)
  const at = (offset: number) => new Date(Date.now() + (offset - days) * day).toISOString().slice(0, 10)
  yield* sql.unsafe(`CREATE TABLE workspace_agent_stats_first PARTITION OF workspace_agent_stats
    FOR VALUES FROM ('${at(0)} 00:00+00') TO ('${at(1)} 00:00+00')`)
})

/** What is wrong with the days lived through, nothing if all is well. */
export const faultsOf = (
  lived: ReadonlyArray<Day>,
  options: { readonly statsPerDay: number; readonly agents: number }
): ReadonlyArray<string> => {
  const settled = lived.slice(agentDays + 1)
  const [first] = settled
  if (first === undefined) return ["too few days"]
  const largest = (of: (day: Day) => number) => Math.max(...settled.map(of))
  const mostStats = options.statsPerDay * (statsDays + 1)
  const mostFacts = options.agents * (1 + (agentDays + 1) / 10) * 10
  return [
    ...(largest((day) => day.statsRows) <= mostStats ? [] : ["statistics are left that are too old"]),
    ...(largest((day) => day.metadataRows) <= mostFacts ? [] : ["agents are left that are gone"]),
    ...(largest((day) => day.statsBytes) <= 1.25 * first.statsBytes ? [] : ["the statistics' table grew"]),
    ...(largest((day) => day.metadataBytes) <= 1.25 * first.metadataBytes
      ? []
      : ["the metadata's table grew"])
  ]
}

const report = makeReports({ agents: 2_000, rounds: 4 })

const statsOf = (n: number): AgentStatsRow => {
  const id = crypto.randomUUID()
  return {
    id,
    createdAt: DateTime.makeUnsafe(Date.now()),
    agentId: (report[n % report.length] ?? { agentId: id }).agentId as AgentStatsRow["agentId"],
    userId: id,
    templateId: id,
    workspaceId: id,
    connectionsByProto: { ssh: 1 },
    connectionCount: 1n,
    rxPackets: 1n,
    rxBytes: 1n,
    txPackets: 1n,
    txBytes: 1n,
    sessionCountVSCode: 1n,
    sessionCountJetBrains: 0n,
    sessionCountReconnectingPTY: 0n,
    sessionCountSSH: 0n,
    connectionMedianLatencyMs: 1
  }
}

/** Statements that the server took at least so many milliseconds for are in its log. */
const loggedMillis = 20

/** Milliseconds of the slowest statement of retention by the server's log, which this busy process has no part in. */
const slowest = (log: string): number =>
  Math.max(
    loggedMillis,
    ...Array.from(
      log.matchAll(/duration: ([\d.]+) ms\s+execute [^:]*:\s+WITH (?:turn|RECURSIVE page)/g),
      ([, millis]) => Number(millis)
    )
  )

/**
 * Two writers of facts and one of statistics as fast as the server takes them,
 * by turns with retention and without, over a backlog that it does not get to
 * the end of. Needs the tables, empty.
 */
export const underLoad = Effect.fnUntraced(
  function* (options: { readonly seconds: number; readonly rounds: number }) {
    const { rounds, seconds } = options
    const sql = yield* PgClient.PgClient
    const store = yield* PgStore.make()
    yield* sql.unsafe(
      `INSERT INTO workspace_agent_stats (id, created_at, user_id, agent_id, workspace_id, template_id)
     SELECT gen_random_uuid(), now() - interval '9 days' + n * interval '50 ms',
       gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
     FROM generate_series(0, 1000000) AS n`
    )
    yield* sql.unsafe(
      `INSERT INTO workspace_agent_metadata
     SELECT md5(n::text)::uuid, 'key ' || k, repeat('x', 20), '', now() - n * interval '1 second'
     FROM generate_series(1, 20000) AS n, generate_series(1, 10) AS k`
    )
    yield* sql`VACUUM ANALYZE`
    yield* sql`CHECKPOINT`

    let rows = 0
    let next = 0
    const writeFacts = Effect.suspend(() => {
      const at = (next++ * 50) % report.length
      const reports = report.slice(at, at + 50)
      return Effect.map(store.batchUpdateMetadata(columns(reports)), () => {
        rows += 10 * reports.length
      })
    })
    const writeStats = Effect.suspend(() =>
      Effect.map(store.batchInsertStats(Array.from({ length: 1_024 }, (_, n) => statsOf(n))), () => {
        rows += 1_024
      })
    )
    const write = Effect.all(
      [writeFacts, writeFacts, writeStats].map((write) => Effect.forever(write)),
      {
        concurrency: "unbounded"
      }
    )

    // Each over again, for a pass over the agents is otherwise made every 36 seconds.
    const retention = Effect.all(
      [PgRetention.run({ stats: "1 day" }), PgRetention.run({ agentsUnseen: "1 hour" })].map((run) =>
        Effect.forever(run)
      ),
      { concurrency: "unbounded" }
    )
    const measure = Effect.fnUntraced(function* (withRetention: boolean) {
      const writing = yield* Effect.forkChild(write)
      if (withRetention) yield* Effect.forkScoped(retention)
      const [before, start] = [rows, performance.now()]
      yield* Effect.sleep(seconds * 1_000)
      const perSecond = (rows - before) / ((performance.now() - start) / 1_000)
      yield* Fiber.interrupt(writing)
      return perSecond
    }, Effect.scoped)

    const total = { with: 0, without: 0 }
    yield* measure(false)
    for (let round = 0; round < rounds; round++) {
      // By turns which is first, since the tables grow.
      for (const isWith of round % 2 === 0 ? [true, false] : [false, true]) {
        total[isWith ? "with" : "without"] += (yield* measure(isWith)) / rounds
      }
    }
    const { host } = sql.config
    const log = yield* Effect.promise(() => readFile(join(String(host), "log"), "utf8"))
    const { deletedRows, statementDuration } = RetentionMetrics.make({ prefix: "agentapi" })
    const seen = yield* Effect.forEach(["stats", "metadata"], (table) =>
      Effect.all([
        Metric.value(Metric.withAttributes(deletedRows, { table })),
        Metric.value(Metric.withAttributes(statementDuration, { table }))
      ])
    )
    return {
      rowsPerSecond: total,
      share: total.with / total.without,
      deletedPerSecond: seen.map(([{ count }]) => count / (seconds * rounds)),
      statements: seen.map(([, { count }]) => count),
      slowestMillis: slowest(log)
    }
  },
  (effect) => Effect.provideService(effect, Metric.MetricRegistry, new Map())
)

const main = async () => {
  const { values } = parseArgs({
    options: { days: { type: "string", default: "100" }, seconds: { type: "string", default: "60" } }
  })
  const figure = (value: number) => Math.round(value).toLocaleString("en-US")
  const faults: Array<string> = []
  const inDatabase = <A, E>(partitioned: boolean, f: Effect.Effect<A, E, PgClient.PgClient>) =>
    Effect.runPromise(
      Effect.provide(
        f,
        PgMigrations.layer({ partitioned }).pipe(
          Layer.provideMerge(EmbeddedPostgres.layerClient()),
          Layer.provideMerge(
            EmbeddedPostgres.layer({ settings: { log_min_duration_statement: `${loggedMillis}` } })
          )
        )
      ) as Effect.Effect<A, E>
    )

  const days = Number(values.days)
  const lives = { days, statsPerDay: 20_000, agents: 1_000 }
  for (const partitioned of [false, true]) {
    const what = partitioned ? "partitioned by time" : "one table"
    const lived = await inDatabase(
      partitioned,
      Effect.andThen(partitioned ? partitionFrom(days) : Effect.void, retentionSoak(lives))
    )
    console.log(`${days} days, statistics in ${what}: rows and KiB of the statistics, of the metadata`)
    for (const age of new Set([0, 1, 3, 6, 10, 30, 60, days - 1])) {
      const at = lived[age]
      if (at === undefined) continue
      console.log(
        `  day ${age + 1}: ${figure(at.statsRows)} ${figure(at.statsBytes / 1024)}, ` +
          `${figure(at.metadataRows)} ${figure(at.metadataBytes / 1024)}`
      )
    }
    faults.push(...faultsOf(lived, lives).map((fault) => `${what}: ${fault}`))
  }

  // Short turns, so that whatever else the machine does falls on both sides.
  const rounds = Math.max(1, Math.round(Number(values.seconds) / 4))
  const load = await inDatabase(false, underLoad({ seconds: Number(values.seconds) / (2 * rounds), rounds }))
  console.log(
    `under full load: ${figure(load.rowsPerSecond.with)} rows/s with retention, ` +
      `${figure(load.rowsPerSecond.without)} without: ${load.share.toFixed(3)}; deleted ` +
      `${load.deletedPerSecond.map(figure).join(" and ")} rows/s of statistics and metadata by ` +
      `${load.statements.join(" and ")} statements, the slowest up to ${figure(load.slowestMillis)} ms`
  )
  if (load.share < 0.95)
    faults.push(`writers got ${load.share.toFixed(3)} of what they get without retention`)
  if (load.slowestMillis > 100) faults.push(`a statement took ${figure(load.slowestMillis)} ms`)

  console.log(faults.length === 0 ? "PASSED" : `FAILED: ${faults.join("; ")}`)
  process.exit(faults.length === 0 ? 0 : 1)
}

if (import.meta.main) await main()
