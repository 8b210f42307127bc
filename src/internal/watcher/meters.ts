import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type { StoreErrorReason } from "../../Store.ts"
import type { WatcherMetrics } from "../../WatcherMetrics.ts"
import { observe } from "../gauge.ts"

/** The updates a watcher makes to its metrics, as plain calls. */
export interface Meters {
  readonly round: () => void
  readonly read: (agents: number, seconds: number) => void
  readonly readFailed: (reason: StoreErrorReason["_tag"]) => void
  readonly delayed: (seconds: number) => void
  readonly resync: () => void
}

export const make = Effect.fnUntraced(function* (
  metrics: WatcherMetrics,
  gauges: { readonly [Name in "watchers" | "agents" | "subscribed" | "stale"]: () => number }
): Effect.fn.Return<Meters, never, Scope.Scope> {
  const context = yield* Effect.context<never>()
  for (const name of ["watchers", "agents", "subscribed", "stale"] as const) {
    yield* observe(context, metrics[name], gauges[name])
  }

  const failure = (reason: StoreErrorReason["_tag"]) =>
    Metric.withAttributes(metrics.readFailures, { reason })
  const failures = {
    Unavailable: failure("Unavailable"),
    Rejected: failure("Rejected"),
    Canceled: failure("Canceled")
  }
  // A counter that first appears with its first event shows no increase for it, and an alert stays silent.
  const { agentsRead, resyncs, rounds } = metrics
  for (const counter of [agentsRead, resyncs, rounds, ...Object.values(failures)]) {
    counter.updateUnsafe(0, context)
  }

  return {
    round: () => rounds.updateUnsafe(1, context),
    read: (agents, seconds) => {
      agentsRead.updateUnsafe(agents, context)
      metrics.readDuration.updateUnsafe(seconds, context)
    },
    readFailed: (reason) => failures[reason].updateUnsafe(1, context),
    delayed: (seconds) => metrics.delay.updateUnsafe(seconds, context),
    resync: () => resyncs.updateUnsafe(1, context)
  }
})
