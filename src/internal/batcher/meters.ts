import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type { BatcherMetrics } from "../../BatcherMetrics.ts"
import { observe } from "../gauge.ts"
import type { Account } from "./account.ts"
import type { Reason } from "./models.ts"

/** Why a statement failed, as a label. */
export type FailureLabel = "Unavailable" | "Rejected" | "Canceled"

/** The updates a batcher makes to its metrics; plain calls, since some are made for every report or agent. */
export interface Meters {
  /** Brings the counters of records up to the account. */
  readonly catchUp: () => void
  readonly writeFailed: (reason: FailureLabel) => void
  readonly publishFailed: (count: number) => void
  readonly dated: (count: number) => void
  readonly flushed: (
    reason: Reason,
    rowsByGroup: ReadonlyArray<number>,
    rows: number,
    seconds: number
  ) => void
}

/** What the gauges show, read when metrics are. */
export interface Readings {
  /** When the longest waiting row was added, in milliseconds since the epoch. */
  readonly oldest: () => number | undefined
  readonly unannounced: () => number
  readonly now: () => number
}

const reasons: ReadonlyArray<Reason> = ["capacity", "scheduled", "shutdown", "manual"]
const failureLabels: ReadonlyArray<FailureLabel> = ["Unavailable", "Rejected", "Canceled"]

/** Registers the gauges, until the scope closes. All that they read has to stand by then. */
export const observeAll = Effect.fnUntraced(function* (
  metrics: BatcherMetrics,
  account: Account,
  readings: Readings
): Effect.fn.Return<void, never, Scope.Scope> {
  const metricContext = yield* registryContext
  yield* observe(metricContext, metrics.queueDepth, () => account.queued)
  yield* observe(metricContext, metrics.pending, () => account.pending)
  yield* observe(metricContext, metrics.inFlight, () => account.inFlight)
  yield* observe(metricContext, metrics.refused, () => account.refused)
  yield* observe(metricContext, metrics.pendingBytes, () => account.bytes)
  yield* observe(metricContext, metrics.unannounced, readings.unannounced)
  yield* observe(metricContext, metrics.oldestPendingAge, () => {
    const since = readings.oldest()
    return since === undefined ? 0 : Math.max(0, readings.now() - since) / 1000
  })
})

export const make = Effect.fnUntraced(function* (
  metrics: BatcherMetrics,
  account: Account
): Effect.fn.Return<Meters> {
  const metricContext = yield* registryContext
  const batches = labelled(metrics.batches, reasons)
  const durations = labelled(metrics.flushDuration, reasons)
  const failures = labelled(metrics.writeFailures, failureLabels)
  const add = (counter: Metric.Counter<number>, count: number) => counter.updateUnsafe(count, metricContext)

  // A counter that first appears with its first event shows no increase for it, and an alert stays silent.
  const { dated, discarded, dropped, flushed, publishErrors, superseded, unchanged } = metrics
  const byReason = [...Object.values(batches), ...Object.values(failures)]
  for (const counter of [
    dropped,
    superseded,
    unchanged,
    flushed,
    discarded,
    publishErrors,
    dated,
    ...byReason
  ]) {
    add(counter, 0)
  }

  // Counters follow the account: a call per fact would cost as much as the fact.
  const follow = (counter: Metric.Counter<number>, read: () => number) => {
    let counted = 0
    return () => {
      const count = read()
      if (count !== counted) add(counter, count - counted)
      counted = count
    }
  }
  const followers = [
    follow(dropped, () => account.dropped),
    follow(superseded, () => account.superseded),
    follow(unchanged, () => account.unchanged),
    follow(flushed, () => account.written),
    follow(discarded, () => account.discarded)
  ]

  return {
    catchUp: () => {
      for (const update of followers) update()
    },
    writeFailed: (reason) => add(failures[reason], 1),
    publishFailed: (count) => add(publishErrors, count),
    dated: (count) => add(dated, count),
    flushed: (reason, rowsByGroup, rows, seconds) => {
      for (const count of rowsByGroup) metrics.batchUtilization.updateUnsafe(count, metricContext)
      metrics.batchSize.updateUnsafe(rows, metricContext)
      add(batches[reason], 1)
      durations[reason].updateUnsafe(seconds, metricContext)
    }
  }
})

// Both are looked up at every update; what is not there costs twice as much as what is.
const registryContext = Effect.map(Metric.MetricRegistry, (registry) =>
  Context.make(Metric.MetricRegistry, registry).pipe(Context.add(Metric.CurrentMetricAttributes, {}))
)

const labelled = <Label extends string, Input, State>(
  metric: Metric.Metric<Input, State>,
  labels: ReadonlyArray<Label>
) =>
  Object.fromEntries(labels.map((reason) => [reason, Metric.withAttributes(metric, { reason })])) as Record<
    Label,
    Metric.Metric<Input, State>
  >
