/**
 * The metrics of a watcher, as handles.
 *
 * The watcher updates them; read them through an exporter, or with
 * `Metric.value` in a test. Gauges are read when metrics are. No agent id and no
 * key is ever a label: the number of series is fixed.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Seconds of one read, and seconds from an announcement to what it brings: 5 ms
 * to 5 s.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const durationBoundaries: ReadonlyArray<number> = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/**
 * The handles of one watcher. Update a labelled one through
 * `Metric.withAttributes(handle, { reason })`.
 *
 * @category models
 * @since 0.1.0
 */
export interface WatcherMetrics {
  /** Streams that are running now. */
  readonly watchers: Metric.Gauge<number>
  /** Agents that are watched now. */
  readonly agents: Metric.Gauge<number>
  /** 1 while changes are announced to the watcher, 0 while it could not subscribe to them. */
  readonly subscribed: Metric.Gauge<number>
  /** Rounds of reading. A round is one statement for up to 2,000 agents. */
  readonly rounds: Metric.Counter<number>
  /** Agents that were read. */
  readonly agentsRead: Metric.Counter<number>
  /** Reads that failed, by `reason`: `Unavailable`, `Rejected`, `Canceled`. */
  readonly readFailures: Metric.Counter<number>
  /** Histogram of seconds per successful read. */
  readonly readDuration: Metric.Histogram<number>
  /** Histogram of seconds from an announcement until its facts are shown: of each round, the longest. */
  readonly delay: Metric.Histogram<number>
  /** Times that announcements may have been missed, and everything watched was read again. */
  readonly resyncs: Metric.Counter<number>
  /** Seconds since when a watched agent cannot be read; 0 if all can. */
  readonly stale: Metric.Gauge<number>
}

/**
 * Makes the handles under a prefix.
 *
 * **Example** (Names)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { WatcherMetrics } from "effect-metadata-batcher"
 *
 * const metrics = WatcherMetrics.make({ prefix: "agentapi" })
 *
 * assert.equal(metrics.rounds.id, "agentapi_watcher_rounds_total")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: { readonly prefix: string }): WatcherMetrics => {
  const name = (suffix: string) => `${options.prefix}_watcher_${suffix}`
  // OpenTelemetry's units. Without one a metric counts as a ratio, which the way to Prometheus puts into a gauge's name.
  const counter = (suffix: string, unit: string, description: string) =>
    Metric.counter(name(suffix), { description, incremental: true, attributes: { unit } })
  const gauge = (suffix: string, unit: string, description: string) =>
    Metric.gauge(name(suffix), { description, attributes: { unit } })
  const seconds = (suffix: string, description: string) =>
    Metric.histogram(name(suffix), { description, boundaries: durationBoundaries, attributes: { unit: "s" } })
  return {
    watchers: gauge("watchers", "{watcher}", "Streams running now"),
    agents: gauge("agents", "{agent}", "Agents watched now"),
    subscribed: gauge("subscribed", "{subscription}", "Whether changes are announced to the watcher"),
    rounds: counter("rounds_total", "{round}", "Rounds of reading"),
    agentsRead: counter("agents_read_total", "{agent}", "Agents read"),
    readFailures: counter("read_failures_total", "{statement}", "Reads that failed"),
    readDuration: seconds("read_duration_seconds", "Seconds per read"),
    delay: seconds("delay_seconds", "Seconds from an announcement until its facts are shown"),
    resyncs: counter("resyncs_total", "{resync}", "Times that everything watched was read again"),
    stale: gauge("stale_seconds", "s", "Seconds since when a watched agent cannot be read")
  }
}
