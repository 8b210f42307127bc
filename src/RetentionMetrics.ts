/**
 * The metrics of `PgRetention`, as handles. Read them through an exporter, or
 * with `Metric.value` in a test.
 *
 * Those with a label `table` say `stats` or `metadata`, whatever the tables are
 * called.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Seconds of one deleting statement: 1 ms to 1 s.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const statementDurationBoundaries: ReadonlyArray<number> = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1
]

/**
 * @category models
 * @since 0.1.0
 */
export interface RetentionMetrics {
  /** Rows deleted, by `table`. Those of a dropped partition are not counted. */
  readonly deletedRows: Metric.Counter<number>
  readonly droppedPartitions: Metric.Counter<number>
  readonly madePartitions: Metric.Counter<number>
  /** Passes that ended with an error, by `table`; the next one tries again. */
  readonly failures: Metric.Counter<number>
  /** Histogram of seconds per statement, by `table`. */
  readonly statementDuration: Metric.Histogram<number>
  /** By how many seconds the oldest statistics are older than they should be; 0 when a pass has caught up, or another replica is at it. */
  readonly lag: Metric.Gauge<number>
}

/**
 * Makes the handles under a prefix.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: { readonly prefix: string }): RetentionMetrics => {
  const name = (suffix: string) => `${options.prefix}_retention_${suffix}`
  const counter = (suffix: string, unit: string, description: string) =>
    Metric.counter(name(suffix), { description, incremental: true, attributes: { unit } })
  return {
    deletedRows: counter("deleted_rows_total", "{row}", "Rows deleted because of their age"),
    droppedPartitions: counter("dropped_partitions_total", "{partition}", "Partitions dropped"),
    madePartitions: counter("made_partitions_total", "{partition}", "Partitions made ahead"),
    failures: counter("failures_total", "{pass}", "Passes that ended with an error"),
    statementDuration: Metric.histogram(name("statement_duration_seconds"), {
      description: "Seconds per statement",
      boundaries: statementDurationBoundaries,
      attributes: { unit: "s" }
    }),
    lag: Metric.gauge(name("lag_seconds"), {
      description: "Seconds by which the oldest statistics are older than they should be",
      attributes: { unit: "s" }
    })
  }
}
