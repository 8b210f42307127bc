/**
 * The metrics of a batcher, as handles.
 *
 * The first seven, up to `publishErrors`, have the names and buckets of
 * `metadatabatcher` in Coder 2.31, so that dashboards made for it work with the
 * prefix `coderd_agentapi`. The others are this library's own. The batcher
 * updates them; read them through an exporter, or with `Metric.value` in a test.
 *
 * No agent id and no key is ever a label: the number of series is fixed.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Keys of one agent in one batch: 1 to 10, then 15, 20, 40, 80, 160.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const utilizationBoundaries: ReadonlyArray<number> = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 40, 80, 160
]

/**
 * Rows of one batch: 10, 25, 50, then every 50 up to 500.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const batchSizeBoundaries: ReadonlyArray<number> = [
  10, 25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500
]

/**
 * Rows of one batch of connection statistics, whose default limit is 1,024.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const statsBatchSizeBoundaries: ReadonlyArray<number> = [
  ...batchSizeBoundaries,
  600,
  700,
  800,
  900,
  1024
]

/**
 * Seconds of one flush: 10 ms to 5 s.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const flushDurationBoundaries: ReadonlyArray<number> = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/**
 * The handles of one batcher. Update a labelled one through
 * `Metric.withAttributes(handle, { reason })`.
 *
 * @category models
 * @since 0.1.0
 */
export interface BatcherMetrics {
  /** Histogram of rows per agent and batch. */
  readonly batchUtilization: Metric.Histogram<number>
  /** Histogram of rows per batch. */
  readonly batchSize: Metric.Histogram<number>
  /** Histogram of seconds per successful flush, by `reason`. */
  readonly flushDuration: Metric.Histogram<number>
  /** Batches written, by `reason`: `capacity`, `scheduled`, `shutdown`, `manual`. */
  readonly batches: Metric.Counter<number>
  /** Offered and not taken: the queue was full, `maxPending` reached, or the batcher closed. */
  readonly dropped: Metric.Counter<number>
  /** Written. */
  readonly flushed: Metric.Counter<number>
  /** Notifications that could not be published. */
  readonly publishErrors: Metric.Counter<number>
  /** Taken, then replaced by a newer one before a write. */
  readonly superseded: Metric.Counter<number>
  /** Said what was last written, and replaced by a later one before its turn. */
  readonly unchanged: Metric.Counter<number>
  /** Taken, then given up: refused for too long, evicted, without a row to update, or unwritten at the end. */
  readonly discarded: Metric.Counter<number>
  /** Dated too far ahead of the clock, and counted as collected when they were added. */
  readonly dated: Metric.Counter<number>
  /** Failed statements, by `reason`: `Unavailable`, `Rejected`, `Canceled`. */
  readonly writeFailures: Metric.Counter<number>
  /** In the queue now. */
  readonly queueDepth: Metric.Gauge<number>
  /** Waiting for a write now. */
  readonly pending: Metric.Gauge<number>
  /** In a write now. */
  readonly inFlight: Metric.Gauge<number>
  /** Refused by the store, waiting to be tried again. */
  readonly refused: Metric.Gauge<number>
  /** Bytes of all that waits. */
  readonly pendingBytes: Metric.Gauge<number>
  /** Agents whose rows are written and of whom nobody could be told yet. */
  readonly unannounced: Metric.Gauge<number>
  /** Seconds for which the longest waiting key has not been written, though updated or tried meanwhile; 0 when none waits. */
  readonly oldestPendingAge: Metric.Gauge<number>
}

/**
 * Makes the handles for one kind of record, `metadata` or `stats`, under a
 * prefix.
 *
 * **Example** (Names)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { BatcherMetrics } from "effect-metadata-batcher"
 *
 * const metrics = BatcherMetrics.make({ prefix: "coderd_agentapi", kind: "metadata" })
 *
 * assert.equal(metrics.flushed.id, "coderd_agentapi_metadata_flushed_total")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: {
  readonly prefix: string
  readonly kind: string
  readonly batchSizeBoundaries?: ReadonlyArray<number> | undefined
}): BatcherMetrics => {
  const name = (suffix: string) => `${options.prefix}_${options.kind}_${suffix}`
  // OpenTelemetry's units. Without one a metric counts as a ratio, which the way to Prometheus puts into a gauge's name.
  const counter = (suffix: string, unit: string, description: string) =>
    Metric.counter(name(suffix), { description, incremental: true, attributes: { unit } })
  const gauge = (suffix: string, unit: string, description: string) =>
    Metric.gauge(name(suffix), { description, attributes: { unit } })
  const histogram = (suffix: string, unit: string, description: string, boundaries: ReadonlyArray<number>) =>
    Metric.histogram(name(suffix), { description, boundaries, attributes: { unit } })
  return {
    batchUtilization: histogram("batch_utilization", row, "Rows per agent and batch", utilizationBoundaries),
    batchSize: histogram(
      "batch_size",
      row,
      "Rows per batch",
      options.batchSizeBoundaries ?? batchSizeBoundaries
    ),
    flushDuration: histogram("flush_duration_seconds", "s", "Seconds per flush", flushDurationBoundaries),
    batches: counter("batches_total", "{batch}", "Batches written"),
    dropped: counter(
      "dropped_keys_total",
      row,
      "Offered but not taken: queue full, too much pending, or closed"
    ),
    flushed: counter("flushed_total", row, "Written"),
    publishErrors: counter(
      "publish_errors_total",
      "{notification}",
      "Notifications that could not be published"
    ),
    superseded: counter("superseded_total", row, "Replaced by a newer one before a write"),
    unchanged: counter("unchanged_total", row, "Said what was last written, and replaced before its turn"),
    discarded: counter("discarded_total", row, "Given up after having been taken"),
    dated: counter(
      "dated_ahead_total",
      row,
      "Dated too far ahead of the clock, counted as collected when added"
    ),
    writeFailures: counter("write_failures_total", "{statement}", "Failed statements"),
    queueDepth: gauge("queue_depth", row, "In the queue now"),
    pending: gauge("pending_keys", row, "Waiting for a write now"),
    inFlight: gauge("in_flight", row, "In a write now"),
    refused: gauge("refused_keys", row, "Refused by the store, waiting to be tried again"),
    pendingBytes: gauge("pending_bytes", "By", "Bytes of all that waits"),
    unannounced: gauge("unannounced_agents", "{agent}", "Written, and nobody could be told yet"),
    oldestPendingAge: gauge("oldest_pending_age_seconds", "s", "Seconds the longest waiting row has waited")
  }
}

const row = "{row}"
