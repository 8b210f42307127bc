/**
 * What the option `unchanged` saves, and what it costs in memory: 2,000 agents
 * report 10 facts each, of which most say what the last one said.
 *
 * Seven in ten agents report nothing new, and the others three new values of
 * ten. Each reports every 1 to 5 seconds, with the batcher's own interval of
 * 5 seconds, without `unchanged` and with 30 seconds of it.
 *
 * Into PostgreSQL all these times are divided by `pace`, those of the agents
 * and those of the batcher alike. That changes no ratio: how often a value is
 * written depends on how many reports come within `unchanged`. It changes how
 * much comes per second, and `pace` is low enough for the server to keep up.
 *
 * In memory, reports come as fast as they are taken, and the clock advances with
 * each by as much as if the agents had kept their pace: values that rest are
 * written again as often as they would be.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import type { Metadata } from "../../src/Metadata.ts"
import type * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import type { Contestant } from "./contestant.ts"
import { race } from "./ingest.ts"
import { load } from "./library.ts"
import { using, workingTree } from "./ours.ts"
import { countTold } from "./postgres.ts"
import { newOverOld, type Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { cpuSeconds, postmasterOf } from "./serverCpu.ts"
import { ratio, summarize } from "./statistics.ts"
import { agentIds, factsPerReport, stride, turn, w1 } from "./workload.ts"

const agents = 2_000
const ids = agentIds(agents)
const keys = Array.from({ length: factsPerReport }, (_, i) => `metadata_key_${i}`)

/** Of ten agents so many report something new, and of ten facts so many are. */
const lively = 3
const liveFacts = 3

/** Milliseconds between two reports of an agent. */
const [shortest, longest] = [1_000, 5_000]
const interval = 5_000
const unchanged = 30_000

type Mode = "off" | "on"
const modes: ReadonlyArray<Mode> = ["off", "on"]

const labels = { off: "without `unchanged`", on: "`unchanged` 30 s" }

const optionsOf = (mode: Mode, pace = 1): MetadataBatcher.Options => ({
  interval: interval / pace,
  ...(mode === "on" && { unchanged: unchanged / pace })
})

const factsOf = (agent: number, round: number, collectedAt: DateTime.Utc): ReadonlyArray<Metadata> =>
  keys.map((key, i) => {
    const isNew = agent % 10 < lively && i < liveFacts
    return { key, value: isNew ? `value ${round}` : "the same value", error: "", collectedAt }
  })

interface DatabaseInput {
  readonly mode: Mode
  readonly config: PgClient.PgPoolConfig
  readonly pace: number
  /** For how long is measured, in milliseconds of the agents. */
  readonly millis: number
  /** Sources of the revision; the working tree's by default. */
  readonly sources?: string | undefined
}

interface DatabaseSample {
  /** Microseconds of CPU of the server; null where there is no /proc. */
  readonly cpuPerFact: number | null
  /** Bytes. */
  readonly walPerFact: number
  readonly rowsPerFact: number
  readonly notifiedPerFact: number
  readonly offered: number
  /** How old the oldest row is at the end, in seconds of the agents. */
  readonly oldest: number
}

/** When which agent reports: the same for all who are measured. */
const schedule = (millis: number): ReadonlyArray<readonly [at: number, agent: number]> => {
  let seed = 1
  const random = () => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
    return seed / 2 ** 32
  }
  const reports: Array<readonly [number, number]> = []
  for (let agent = 0; agent < agents; agent++) {
    for (let at = random() * longest; at < millis; at += shortest + random() * (longest - shortest)) {
      reports.push([at, agent])
    }
  }
  return reports.sort(([a], [b]) => a - b)
}

/** Adds each report when its time has come, at the given pace. */
const follow = Effect.fnUntraced(function* (
  batcher: MetadataBatcher.MetadataBatcher["Service"],
  reports: ReturnType<typeof schedule>,
  pace: number
) {
  const start = performance.now()
  let next = 0
  while (next < reports.length) {
    const at = (performance.now() - start) * pace
    const collectedAt = yield* DateTime.now
    for (let report = reports[next]; report !== undefined && report[0] <= at; report = reports[++next]) {
      const [, agent] = report
      batcher.addUnsafe(ids[agent] as (typeof ids)[number], factsOf(agent, next, collectedAt))
    }
    yield* Effect.sleep(1)
  }
  return performance.now() - start
})

const measure = Effect.fnUntraced(function* ({ mode, pace, millis, sources }: DatabaseInput) {
  const sql = yield* PgClient.PgClient
  const [{ directory = "" } = {}] = yield* sql<{ directory: string }>`
    SELECT current_setting('data_directory') AS directory`
  const postmaster = postmasterOf(directory)
  yield* PgMigrations.run()
  yield* sql`TRUNCATE workspace_agent_metadata`
  const told = yield* countTold
  const { openWith } = using(yield* Effect.promise(() => load(sources)))
  const postgres = Layer.merge(PgStore.layer(), PgPubsub.layer())
  const context = yield* Effect.context<PgClient.PgClient>()
  const { batcher } = yield* Effect.acquireRelease(
    Effect.promise(() =>
      openWith(Layer.provide(postgres, Layer.succeedContext(context)), optionsOf(mode, pace))
    ),
    ({ close }) => Effect.promise(close)
  )
  // Everything is written once before anything is counted.
  yield* follow(batcher, schedule(longest), pace)
  yield* batcher.flush
  yield* sql`VACUUM ANALYZE workspace_agent_metadata`
  yield* sql`CHECKPOINT`

  const position = () =>
    Effect.map(
      sql<{ readonly bytes: number }>`SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS bytes`,
      ([row]) => row?.bytes ?? Number.NaN
    )
  const before = { ...(yield* batcher.accounting), told: told(), wal: yield* position() }
  const cpuBefore = cpuSeconds(postmaster)
  const took = yield* follow(batcher, schedule(millis), pace)
  yield* batcher.flush
  const cpuAfter = cpuSeconds(postmaster)
  const wal = (yield* position()) - before.wal
  const after = yield* batcher.accounting
  yield* Effect.sleep(100)
  const offered = after.offered - before.offered
  if (after.dropped + after.discarded > 0) yield* Effect.die(new Error(JSON.stringify(after)))
  // Behind the pace, reports replace each other before they are written, and the ratio says something else.
  if (took > (1.05 * millis) / pace) yield* Effect.die(new Error(`the pace was not kept: ${took} ms`))
  const [row] = yield* sql<{ readonly seconds: number }>`
    SELECT extract(epoch FROM now() - min(collected_at))::float8 AS seconds FROM workspace_agent_metadata`
  return {
    cpuPerFact: cpuBefore === null || cpuAfter === null ? null : ((cpuAfter - cpuBefore) * 1e6) / offered,
    walPerFact: wal / offered,
    rowsPerFact: (after.written - before.written) / offered,
    notifiedPerFact: (told() - before.told) / offered,
    offered,
    oldest: (row?.seconds ?? Number.NaN) * pace
  } satisfies DatabaseSample
}, Effect.scoped)

/** A clock that stands still until it is told to go on. */
class SteppedClock {
  private elapsed = 0
  private sleepers: Array<{ readonly until: number; readonly wake: () => void }> = []

  advance(millis: number): void {
    this.elapsed += millis
    const due = this.sleepers.filter(({ until }) => until <= this.elapsed)
    if (due.length === 0) return
    this.sleepers = this.sleepers.filter(({ until }) => until > this.elapsed)
    for (const { wake } of due) wake()
  }

  /** The wall clock says when the facts were collected: they are given over and over. */
  readonly layer = (wallClock: number) => {
    const millis = () => wallClock
    const nanos = () => BigInt(Math.floor(this.elapsed * 1e6))
    return Layer.succeed(Clock.Clock, {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: () => BigInt(millis()) * 1_000_000n,
      currentTimeNanos: Effect.sync(() => BigInt(millis()) * 1_000_000n),
      monotonicTimeNanosUnsafe: nanos,
      monotonicTimeNanos: Effect.sync(nanos),
      sleep: (duration) =>
        Effect.callback((resume) => {
          const sleeper = {
            until: this.elapsed + Duration.toMillis(duration),
            wake: () => resume(Effect.void)
          }
          this.sleepers.push(sleeper)
          return Effect.sync(() => {
            this.sleepers = this.sleepers.filter((other) => other !== sleeper)
          })
        })
    })
  }
}

const collectedAt = DateTime.makeUnsafe("2026-01-01T00:00:00Z")

/** What the agents report in four rounds, after which they begin anew. */
const makeReports = () =>
  Array.from({ length: 4 * agents }, (_, i) => ({
    agentId: ids[i % agents] as (typeof ids)[number],
    facts: factsOf(i % agents, Math.floor(i / agents), collectedAt)
  }))

/** A batcher that writes to a store that counts. */
export const inMemory = (mode: Mode, ours: ReturnType<typeof using>, name: string): Contestant => ({
  name,
  label: labels[mode],
  bounded: true,
  deduped: "in the buffer",
  timed: "yes",
  open: async (_, sink) => {
    const clock = new SteppedClock()
    const layer = Layer.mergeAll(
      ours.layerStore(sink),
      ours.layerPubsub,
      clock.layer(collectedAt.epochMilliseconds)
    )
    const { batcher, close } = await ours.openWith(layer, optionsOf(mode))
    const reports = makeReports()
    const perReport = (shortest + longest) / 2 / agents
    const isBusy = () => {
      const { inFlight, queued } = Effect.runSync(batcher.accounting)
      return queued + inFlight > 0
    }
    const produce = async (_: unknown, count: number) => {
      for (let i = 0; i < count; i++) {
        const { agentId, facts } = reports[i % reports.length] as (typeof reports)[number]
        if (batcher.addUnsafe(agentId, facts) !== facts.length) throw new Error("facts were dropped")
        if (i % stride !== stride - 1) continue
        clock.advance(stride * perReport)
        do await turn()
        while (isBusy())
      }
      await Effect.runPromise(batcher.flush)
    }
    return { produce, close }
  }
})

interface MemoryInput {
  readonly facts: number
  readonly against?: string | undefined
}

type MemorySample = Readonly<Record<string, { readonly nsPerFact: number; readonly rowsPerFact: number }>>

const before = (mode: Mode) => `${mode} before`

export const sample = async (input: DatabaseInput | MemoryInput): Promise<DatabaseSample | MemorySample> => {
  if ("mode" in input) {
    return Effect.runPromise(Effect.provide(measure(input), PgClient.layer(input.config)))
  }
  const theirs = input.against === undefined ? undefined : using(await load(input.against))
  const racing = modes.flatMap((mode) => [
    inMemory(mode, workingTree, mode),
    ...(theirs === undefined ? [] : [inMemory(mode, theirs, before(mode))])
  ])
  return race(racing, { ...w1, facts: input.facts }, true)
}

interface Settings {
  readonly quick: boolean
  readonly rounds: number
}

/** How many of the agents' seconds pass in one: 2,000 of them then report 20,000 facts a second. */
const pace = 3

const runRounds = Effect.fnUntraced(function* ({ quick, rounds }: Settings) {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const millis = quick ? interval : 2 * unchanged
  const inputs = modes.map((mode) => [mode, { mode, config, pace, millis } satisfies DatabaseInput])
  return yield* Effect.promise(() =>
    sampleRounds<DatabaseSample>(import.meta.filename, Object.fromEntries(inputs), rounds)
  )
})

const layerServer = EmbeddedPostgres.layerClient().pipe(Layer.provideMerge(EmbeddedPostgres.layer()))

const sampleMemory = async ({ quick, rounds }: Settings, against?: string) => {
  // Ten reports of each agent: half a minute of theirs.
  const input: MemoryInput = { facts: quick ? 20_000 : 200_000, against }
  const { memory = [] } = await sampleRounds<MemorySample>(import.meta.filename, { memory: input }, rounds)
  return (name: string) => memory.map((sampled) => sampled[name]?.nsPerFact ?? Number.NaN)
}

const title = "Most facts say what the last one said: 2,000 agents × 10 facts, 9 % of them new"

export const unchangedAgainst = async (against: string, settings: Settings): Promise<Row> => {
  const ns = await sampleMemory(settings, against)
  return newOverOld({
    row: "unchanged",
    title,
    unit: "ns/fact",
    pairs: modes.map((mode) => ({ label: labels[mode], now: ns(mode), before: ns(before(mode)) }))
  })
}

export const unchangedRow = async (settings: Settings): Promise<Row> => {
  const samples = await Effect.runPromise(Effect.provide(runRounds(settings), layerServer))
  const ns = await sampleMemory(settings)
  const of = (mode: Mode, what: keyof DatabaseSample) =>
    (samples[mode] ?? []).map((sampled) => sampled[what] ?? Number.NaN)
  const over = (what: keyof DatabaseSample) => ratio(of("on", what), of("off", what))
  return {
    row: "unchanged",
    title,
    measured: modes.map((mode) => ({
      name: mode,
      label: labels[mode],
      unit: "µs of server CPU per fact",
      value: summarize(of(mode, "cpuPerFact")),
      notes: {
        "WAL per fact": `${summarize(of(mode, "walPerFact")).median.toFixed(0)} bytes`,
        "rows per 1,000 facts": (summarize(of(mode, "rowsPerFact")).median * 1_000).toFixed(0),
        "ids notified": (summarize(of(mode, "notifiedPerFact")).median * 1_000).toFixed(0),
        "oldest row": `${summarize(of(mode, "oldest")).max.toFixed(1)} s`,
        "in memory": `${summarize(ns(mode)).median.toFixed(0)} ns/fact`
      }
    })),
    targets: [
      { what: "server CPU per fact, over that without", value: over("cpuPerFact"), target: { atMost: 0.3 } },
      { what: "WAL per fact", value: over("walPerFact"), target: { atMost: 0.3 } },
      { what: "ids notified", value: over("notifiedPerFact"), target: { atMost: 0.4 } },
      { what: "in memory", value: ratio(ns("on"), ns("off")), target: { atMost: 1.3 } }
    ]
  }
}
