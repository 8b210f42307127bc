/**
 * Watching while facts are written: what it takes of the database and of the
 * batcher, how long a fact takes from its commit to whoever watches, and what an
 * emission costs when there are more watchers.
 *
 * Everything is in one process, as in an application: the batcher, the watchers
 * and their consumers. Facts come at a steady rate, whether there is room or not.
 */
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import type { Metadata } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../../src/MetadataWatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as Store from "../../src/Store.ts"
import { columns } from "./newestWins.ts"
import type { Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { cpuTime, ratio, summarize } from "./statistics.ts"
import { naive, shared } from "./watching.ts"
import { agentIds, factsPerReport, reportOf, turn } from "./workload.ts"

const agents = 500
const factsPerSecond = 20_000
const minInterval = 250

const contestants = {
  none: { watchers: 0, way: "shared", label: "nobody watches" },
  shared: { watchers: 5_000, way: "shared", label: "5,000 watchers" },
  few: { watchers: 500, way: "shared", label: "500 watchers" },
  naive: { watchers: 500, way: "naive", label: "500 naive watchers: a subscription and a SELECT each" }
} as const
type Contestant = keyof typeof contestants

export interface LiveInput {
  readonly kind: "live"
  readonly watchers: number
  readonly way: "shared" | "naive"
  readonly seconds: number
  readonly config: PgClient.PgPoolConfig
}

interface GrowthInput {
  readonly kind: "growth"
  readonly watchers: number
  readonly emissions: number
}

export interface Live {
  readonly selects: number
  readonly emissions: number
  /** Facts that the batcher took, per second. */
  readonly taken: number
  /** Milliseconds from a commit to the watchers. */
  readonly p50: number
  readonly p99: number
  /** Milliseconds that the event loop is late. */
  readonly loopP99: number
  readonly megabytes: number
  /** Seconds of CPU per second, of the process that holds everything but the server. */
  readonly cpu: number
}

/** How long commits took to be shown. A watcher has seen a commit when it sees facts as new as it wrote. */
const makeDelays = () => {
  const commits = new Map<AgentId, Array<{ readonly at: number; readonly collectedAt: number }>>()
  const delays: Array<number> = []
  return {
    delays,
    committed: (ids: ReadonlyArray<AgentId>, collectedAt: ReadonlyArray<number>) => {
      const at = performance.now()
      const newest = new Map<AgentId, number>()
      ids.forEach((id, i) => {
        newest.set(id, Math.max(newest.get(id) ?? 0, collectedAt[i] ?? 0))
      })
      for (const [id, time] of newest) {
        const known = commits.get(id) ?? []
        commits.set(id, known)
        known.push({ at, collectedAt: time })
      }
    },
    watcherOf: (id: AgentId) => {
      let next = 0
      return (facts: ReadonlyArray<Metadata>): void => {
        const known = commits.get(id) ?? []
        let shown = 0
        for (const { collectedAt } of facts) shown = Math.max(shown, collectedAt.epochMilliseconds)
        const first = known[next]
        if (first === undefined || first.collectedAt > shown) return
        while ((known[next]?.collectedAt ?? Number.POSITIVE_INFINITY) <= shown) next += 1
        delays.push(performance.now() - first.at)
      }
    }
  }
}

/** Adds reports at the given rate until the time is up. */
const produce = async (batcher: MetadataBatcher.MetadataBatcher["Service"], seconds: number) => {
  const ids = agentIds(agents)
  const start = performance.now()
  let added = 0
  for (let elapsed = 0; elapsed < seconds * 1_000; elapsed = performance.now() - start) {
    const due = (elapsed * factsPerSecond) / factsPerReport / 1_000
    const collectedAt = DateTime.makeUnsafe(Date.now())
    for (; added < due; added++) {
      const agentId = ids[added % agents] as AgentId
      const facts = reportOf(agentId, added, 0).facts
      batcher.addUnsafe(
        agentId,
        facts.map((fact) => ({ ...fact, collectedAt }))
      )
    }
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const live = Effect.fnUntraced(function* ({ seconds, watchers, way }: LiveInput) {
  const sql = yield* PgClient.PgClient
  yield* sql`TRUNCATE workspace_agent_metadata`
  const pg = yield* PgStore.make()
  const { committed, delays, watcherOf } = makeDelays()
  let selects = 0
  const layerStore = Layer.succeed(
    Store.Store,
    Store.Store.of({
      ...pg,
      batchUpdateMetadata: (batch) =>
        Effect.tap(pg.batchUpdateMetadata(batch), () =>
          Effect.sync(() => committed(batch.agentIds, batch.collectedAt))
        ),
      metadataOf: (ids) =>
        Effect.suspend(() => {
          selects += 1
          return pg.metadataOf(ids)
        })
    })
  )
  const context = yield* Layer.build(Layer.merge(layerStore, PgPubsub.layer()))
  const batcher = yield* Effect.provide(MetadataBatcher.make(), context)
  const watch = yield* Effect.provide(way === "naive" ? naive : shared, context)

  const ids = agentIds(agents)
  let emissions = 0
  for (let i = 0; i < watchers; i++) {
    const agentId = ids[i % agents] as AgentId
    const see = watcherOf(agentId)
    yield* watch(agentId, (facts) => {
      emissions += 1
      see(facts)
    })
  }
  yield* Effect.promise(() => produce(batcher, 2))

  delays.length = 0
  emissions = 0
  selects = 0
  const before = yield* batcher.accounting
  const loop = monitorEventLoopDelay({ resolution: 10 })
  loop.enable()
  const start = performance.now()
  const cpu = yield* Effect.promise(() => cpuTime(() => produce(batcher, seconds)))
  const elapsed = (performance.now() - start) / 1e3
  loop.disable()
  const { dropped, offered } = yield* batcher.accounting
  const ascending = Float64Array.from(delays).sort()
  const percentile = (share: number) => ascending[Math.floor(ascending.length * share)] ?? Number.NaN
  return {
    selects: selects / elapsed,
    emissions: emissions / elapsed,
    taken: (offered - before.offered - (dropped - before.dropped)) / elapsed,
    p50: percentile(0.5),
    p99: percentile(0.99),
    // What it is late beyond the resolution it is looked at with.
    loopP99: Math.max(0, loop.percentile(99) / 1e6 - 10),
    megabytes: process.memoryUsage.rss() / 1e6,
    cpu: cpu / 1e9 / elapsed
  } satisfies Live
}, Effect.scoped)

/** Nanoseconds of CPU per emission: one report of each agent is written, announced, read and shown to all. */
const grow = Effect.fnUntraced(function* ({ emissions, watchers }: GrowthInput) {
  const context = yield* Layer.build(Layer.merge(Store.layerMemory, Pubsub.layerMemory))
  return yield* Effect.gen(function* () {
    const store = yield* Store.Store
    const pubsub = yield* Pubsub.Pubsub
    const watcher = yield* MetadataWatcher.make({ minInterval: 1 })
    const ids = agentIds(agents)
    let shown = 0
    for (let i = 0; i < watchers; i++) {
      const stream = watcher.watch(ids[i % agents] as AgentId)
      yield* Effect.forkScoped(Stream.runForEach(stream, () => Effect.sync(() => void shown++)))
    }
    const payloads = AgentIdChunks.encode(ids)
    let at = 0
    const pass = Effect.fnUntraced(function* (rounds: number) {
      for (let round = 0; round < rounds; round++) {
        at += 1
        yield* store.batchUpdateMetadata(columns(ids.map((id) => reportOf(id, at, at))))
        shown = 0
        yield* pubsub.publish(MetadataBatcher.metadataBatchChannel, payloads)
        while (shown < watchers) yield* Effect.promise(turn)
      }
    })
    const rounds = Math.max(3, Math.ceil(emissions / watchers))
    yield* Effect.sleep("100 millis")
    yield* pass(rounds)
    const costs: Array<number> = []
    for (let i = 0; i < 5; i++) {
      globalThis.gc?.()
      const ns = yield* Effect.promise(() => cpuTime(() => Effect.runPromise(pass(rounds))))
      costs.push(ns / rounds / watchers)
    }
    return summarize(costs).median
  }).pipe(Effect.provide(context))
}, Effect.scoped)

export const sample = (input: LiveInput | GrowthInput): Promise<Live | number> =>
  input.kind === "growth"
    ? Effect.runPromise(grow(input))
    : Effect.runPromise(Effect.provide(live(input), PgClient.layer(input.config)))

const measure = Effect.fnUntraced(function* (seconds: number, rounds: number) {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  yield* PgMigrations.run()
  const names = Object.keys(contestants) as ReadonlyArray<Contestant>
  const inputs = names.map((name) => {
    const { watchers, way } = contestants[name]
    return [name, { kind: "live", watchers, way, seconds, config } satisfies LiveInput] as const
  })
  return yield* Effect.promise(() =>
    sampleRounds<Live>(import.meta.filename, Object.fromEntries(inputs), rounds)
  )
}, Effect.scoped)

const layerServer = EmbeddedPostgres.layerClient().pipe(Layer.provideMerge(EmbeddedPostgres.layer()))

const crowds = [500, 50_000] as const

export const watch = async (settings: {
  readonly quick: boolean
  readonly rounds: number
  readonly seconds: number
}): Promise<Row> => {
  // A sample takes as long as it is told to: fewer of them do.
  const rounds = Math.ceil(settings.rounds / 2)
  const samples = await Effect.runPromise(Effect.provide(measure(settings.seconds, rounds), layerServer))
  const emissions = settings.quick ? 20_000 : 200_000
  const costs = await sampleRounds<number>(
    import.meta.filename,
    Object.fromEntries(
      crowds.map((watchers) => [watchers, { kind: "growth", watchers, emissions } satisfies GrowthInput])
    ),
    rounds
  )
  const of = (name: Contestant, what: keyof Live) => (samples[name] ?? []).map((sampled) => sampled[what])
  const figure = (name: Contestant, what: keyof Live, unit: string) =>
    `${summarize(of(name, what)).median.toFixed(0)} ${unit}`
  const allowed = (settings.seconds * 1_000) / minInterval + 1
  const names = Object.keys(contestants) as ReadonlyArray<Contestant>
  return {
    row: "watch",
    title: `Watching ${agents} agents under ${factsPerSecond.toLocaleString("en-US")} facts/s`,
    measured: [
      ...names.map((name) => ({
        name,
        label: contestants[name].label,
        unit: "facts/s taken in",
        value: summarize(of(name, "taken")),
        notes: {
          SELECTs: figure(name, "selects", "/s"),
          shown: figure(name, "emissions", "/s"),
          "commit to shown":
            name === "none" ? "" : `p50 ${figure(name, "p50", "ms")}, p99 ${figure(name, "p99", "ms")}`,
          "event loop late, p99": figure(name, "loopP99", "ms"),
          CPU: `${summarize(of(name, "cpu")).median.toFixed(2)} cores`,
          RSS: figure(name, "megabytes", "MB")
        }
      })),
      ...crowds.map((watchers) => ({
        name: `${watchers}`,
        label: `${watchers.toLocaleString("en-US")} watchers of ${agents} agents in memory`,
        unit: "ns/emission",
        value: summarize(costs[watchers] ?? [])
      }))
    ],
    targets: [
      {
        what: "SELECTs, 5,000 watchers, over one per minInterval",
        value: summarize(
          of("shared", "selects").map((perSecond) => (perSecond * settings.seconds) / allowed)
        ),
        target: { atMost: 1 }
      },
      {
        what: "ms from commit to shown, p99, 5,000 watchers",
        value: summarize(of("shared", "p99")),
        target: { atMost: minInterval + 250 }
      },
      {
        what: "facts taken in, 5,000 watchers over none",
        value: ratio(of("shared", "taken"), of("none", "taken")),
        target: { atLeast: 0.95 }
      },
      {
        what: "cost per emission, 50,000 watchers over 500",
        value: ratio(costs[crowds[1]] ?? [], costs[crowds[0]] ?? []),
        target: { atMost: 1.5 }
      }
    ],
    ratios: [
      {
        what: "SELECTs, 500 naive watchers over 500",
        value: ratio(of("naive", "selects"), of("few", "selects"))
      },
      {
        what: "facts taken in, 500 naive watchers over 500",
        value: ratio(of("naive", "taken"), of("few", "taken"))
      }
    ]
  }
}
