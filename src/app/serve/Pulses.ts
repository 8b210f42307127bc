/**
 * The server's own counters, taken every second and kept for two minutes, so
 * that a page's charts start filled.
 *
 * @since 0.1.0
 */
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as BatcherMetrics from "../../BatcherMetrics.ts"
import { MetadataBatcher } from "../../MetadataBatcher.ts"
import { StatsBatcher } from "../../StatsBatcher.ts"
import type { Pulse } from "../api/Events.ts"
import * as Outbox from "./Outbox.ts"
import type { Settings } from "./Settings.ts"
import { State } from "./State.ts"
import { StoreProbe } from "./StoreProbe.ts"
import { type Watcher, Watchers } from "./Watchers.ts"

/**
 * @category services
 * @since 0.1.0
 */
export class Pulses extends Context.Service<
  Pulses,
  {
    /** Tells one watcher what has been so far. */
    readonly tell: (watcher: Watcher) => void
  }
>()("effect-metadata-batcher/app/Pulses") {}

const maxPulses = 120

type Batches = Pulse["batches"]

const reasons = ["capacity", "scheduled", "manual", "shutdown"] as const

const noBatches: Batches = {
  capacity: { count: 0, rows: 0 },
  scheduled: { count: 0, rows: 0 },
  manual: { count: 0, rows: 0 },
  shutdown: { count: 0, rows: 0 }
}

const { batches: batchesTotal } = BatcherMetrics.make({ prefix: "agentapi", kind: "metadata" })

const countBatches: Effect.Effect<ReadonlyArray<number>> = Effect.forEach(reasons, (reason) =>
  Effect.map(Metric.value(Metric.withAttributes(batchesTotal, { reason })), ({ count }) => Number(count))
)

/**
 * The metrics count batches by reason, and the store counts rows. A second has
 * batches of one reason as a rule; where it has more, each gets the mean.
 */
const addUp = (before: Batches, counts: ReadonlyArray<number>, newRows: number): Batches => {
  const news = reasons.map((reason, i) => (counts[i] ?? 0) - before[reason].count)
  const newBatches = news.reduce((sum, count) => sum + count, 0)
  const rowsOf = (i: number) => (newBatches === 0 ? 0 : (newRows * (news[i] ?? 0)) / newBatches)
  return Object.fromEntries(
    reasons.map((reason, i) => [
      reason,
      { count: counts[i] ?? 0, rows: Math.round(before[reason].rows + rowsOf(i)) }
    ])
  ) as Batches
}

const percentile = (ascending: ReadonlyArray<number>, share: number): number | null =>
  ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? null

const eventLoopDelay = Effect.acquireRelease(
  Effect.sync(() => {
    const delay = monitorEventLoopDelay({ resolution: 10 })
    delay.enable()
    return delay
  }),
  (delay) => Effect.sync(() => delay.disable())
)

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = ({
  capacity,
  maxPending
}: Pick<Settings, "capacity" | "maxPending">): Layer.Layer<
  Pulses,
  never,
  MetadataBatcher | State | StatsBatcher | StoreProbe | Watchers
> =>
  Layer.effect(
    Pulses,
    Effect.gen(function* () {
      const metadata = yield* MetadataBatcher
      const stats = yield* StatsBatcher
      const probe = yield* StoreProbe
      const state = yield* State
      const watchers = yield* Watchers
      const { currentTimeMillisUnsafe } = yield* Clock.Clock
      const delay = yield* eventLoopDelay

      const pulses: Array<Pulse> = []
      let batches = noBatches
      let rows = 0

      const take = Effect.gen(function* () {
        const rowsNow = probe.rows()
        batches = addUp(batches, yield* countBatches, rowsNow - rows)
        rows = rowsNow
        const writes = probe
          .writes()
          .map(({ millis }) => millis)
          .sort((a, b) => a - b)
        const eventLoopP99Ms = delay.percentile(99) / 1e6
        delay.reset()
        const { storeError, storeSince } = state.current()
        return {
          at: currentTimeMillisUnsafe(),
          metadata: yield* metadata.accounting,
          stats: yield* stats.accounting,
          batches,
          writeMs: { p50: percentile(writes, 0.5), p95: percentile(writes, 0.95), count: writes.length },
          capacity,
          maxPending,
          watchers: watchers.count(),
          rss: process.memoryUsage.rss(),
          eventLoopP99Ms,
          storeSince,
          storeError
        } satisfies Pulse
      })

      const beat = Effect.map(take, (pulse) => {
        pulses.push(pulse)
        if (pulses.length > maxPulses) pulses.shift()
        const bytes = [Outbox.event("pulse", pulse)]
        for (const { outbox } of watchers.of("pulse")) outbox.put("pulse", () => bytes)
      })
      yield* beat
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), beat)))

      return Pulses.of({
        tell: ({ outbox }) => outbox.put("history", () => [Outbox.event("history", { pulses })])
      })
    })
  )
