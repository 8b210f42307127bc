import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type { Reason } from "../Batcher.ts"
import type { BatcherMetrics } from "../BatcherMetrics.ts"
import type { StoreErrorReason } from "../Store.ts"
import type { Ledger } from "./ledger.ts"

/** The updates a batcher makes to its metrics; plain calls, since some are made for every offer or agent. */
export interface Meters {
  /** Brings the counters of records up to the ledger. */
  readonly catchUp: () => void
  readonly writeFailed: (reason: StoreErrorReason["_tag"]) => void
  readonly publishFailed: (count: number) => void
  readonly flushed: (
    reason: Reason,
    rowsByAgent: ReadonlyMap<string, number>,
    rows: number,
    seconds: number
  ) => void
}

export const make = Effect.fnUntraced(function* (options: {
  readonly metrics: BatcherMetrics
  readonly ledger: Ledger
  readonly clock: Clock.Clock
  readonly oldest: () => number | undefined
}): Effect.fn.Return<Meters, never, Scope.Scope> {
  const { clock, ledger, metrics, oldest } = options
  const context = yield* Effect.context<never>()

  yield* observe(context, metrics.queueDepth, () => ledger.queued)
  yield* observe(context, metrics.pending, () => ledger.pending)
  yield* observe(context, metrics.inFlight, () => ledger.inFlight)
  yield* observe(context, metrics.oldestPendingAge, () => {
    const since = oldest()
    return since === undefined ? 0 : Math.max(0, clock.currentTimeMillisUnsafe() - since) / 1000
  })

  const labelled = <Label extends string, Input, State>(
    metric: Metric.Metric<Input, State>,
    labels: ReadonlyArray<Label>
  ) =>
    Object.fromEntries(labels.map((reason) => [reason, Metric.withAttributes(metric, { reason })])) as Record<
      Label,
      Metric.Metric<Input, State>
    >
  const reasons: ReadonlyArray<Reason> = ["capacity", "scheduled", "shutdown", "manual"]
  const batches = labelled(metrics.batches, reasons)
  const durations = labelled(metrics.flushDuration, reasons)
  const failures = labelled(metrics.writeFailures, ["Unavailable", "Rejected", "Canceled"])

  // Counters follow the ledger rather than count each record on its own: a call per fact would cost as much as the fact.
  const follow = (counter: Metric.Counter<number>, read: () => number) => {
    let counted = 0
    return () => {
      const count = read()
      if (count !== counted) counter.updateUnsafe(count - counted, context)
      counted = count
    }
  }

  // A counter that first appears with its first event shows no increase for it, and an alert stays silent.
  const { discarded, dropped, flushed, publishErrors, superseded } = metrics
  const perReason = [...Object.values(batches), ...Object.values(failures)]
  for (const counter of [dropped, superseded, flushed, discarded, publishErrors, ...perReason]) {
    counter.updateUnsafe(0, context)
  }
  const followers = [
    follow(dropped, () => ledger.dropped),
    follow(superseded, () => ledger.superseded),
    follow(flushed, () => ledger.written),
    follow(discarded, () => ledger.discarded)
  ]
  const catchUp = () => {
    for (const update of followers) update()
  }

  return {
    catchUp,
    writeFailed: (reason) => failures[reason].updateUnsafe(1, context),
    publishFailed: (count) => metrics.publishErrors.updateUnsafe(count, context),
    flushed: (reason, rowsByAgent, rows, seconds) => {
      for (const count of rowsByAgent.values()) metrics.batchUtilization.updateUnsafe(count, context)
      metrics.batchSize.updateUnsafe(rows, context)
      batches[reason].updateUnsafe(1, context)
      // The wall clock may be set back meanwhile.
      durations[reason].updateUnsafe(Math.max(0, seconds), context)
    }
  }
})

/** A gauge that is read when metrics are, and gone with the batcher. */
const observe = (context: Context.Context<never>, gauge: Metric.Gauge<number>, read: () => number) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      Metric.registerUnsafe(gauge, context, {
        get: () => ({ value: read() }),
        update: () => {},
        modify: () => {}
      })
    ),
    (registration) => Effect.sync(registration.remove)
  )
