/**
 * What the demo shows once a second: where every record is, what the batches
 * and notifications do, and how the process and its database are.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { Reason } from "../Batcher.ts"
import * as BatcherMetrics from "../BatcherMetrics.ts"
import type { MetadataBatcher } from "../MetadataBatcher.ts"
import type { StatsBatcher } from "../StatsBatcher.ts"
import { layout, type Snapshot, summary } from "./DashboardLayout.ts"
import { Screen } from "./Screen.ts"
import type { Watch } from "./Watch.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly title: string
  readonly metadata: MetadataBatcher["Service"]
  readonly stats: StatsBatcher["Service"]
  readonly watch: Watch
}

const reasons: ReadonlyArray<Reason> = ["capacity", "scheduled", "manual", "shutdown"]

const batchesOf = (kind: string) => {
  const { batches } = BatcherMetrics.make({ prefix: "agentapi", kind })
  return Effect.forEach(reasons, (reason) =>
    Effect.map(
      Metric.value(Metric.withAttributes(batches, { reason })),
      ({ count }) => [reason, count] as const
    )
  )
}

const percentile = (ascending: ReadonlyArray<number>, share: number): number | undefined =>
  ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))]

/**
 * @category models
 * @since 0.1.0
 */
export interface Dashboard {
  readonly draw: Effect.Effect<void>
  /** Draws every second until it is interrupted. */
  readonly run: Effect.Effect<never>
}

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Dashboard, never, Screen> {
  const screen = yield* Screen
  const { currentTimeMillisUnsafe } = yield* Clock.Clock
  const start = currentTimeMillisUnsafe()
  let before = { at: start, rows: 0 }
  let rowsPerSecond = 0

  const look = Effect.gen(function* () {
    const metadata = yield* options.metadata.accounting
    const stats = yield* options.stats.accounting
    const { isUp, latencies, notifications } = yield* options.watch.sightings
    const now = { at: currentTimeMillisUnsafe(), rows: metadata.written + stats.written }
    // The last look may come right after the one before.
    if (now.at - before.at > 500) {
      rowsPerSecond = Math.round(((now.rows - before.rows) / (now.at - before.at)) * 1000)
      before = now
    }
    return {
      title: options.title,
      seconds: Math.round((now.at - start) / 1000),
      metadata,
      stats,
      metadataBatches: yield* batchesOf("metadata"),
      statsBatches: yield* batchesOf("stats"),
      rowsPerSecond,
      notifications,
      p50: percentile(latencies, 0.5),
      p99: percentile(latencies, 0.99),
      isUp,
      rss: process.memoryUsage.rss()
    } satisfies Snapshot
  })

  const draw = Effect.flatMap(look, (snapshot) =>
    screen.draw(screen.isLive ? layout(snapshot) : [summary(snapshot)])
  )
  return { draw, run: Effect.forever(Effect.andThen(Effect.sleep("1 second"), draw)) }
})
