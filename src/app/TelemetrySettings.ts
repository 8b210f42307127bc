/**
 * What telemetry is exported, and where to.
 *
 * @since 0.1.0
 */

/**
 * Where a signal goes.
 *
 * @category models
 * @since 0.1.0
 */
export type Exporter = "otlp" | "console"

/**
 * What is exported, and how.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings {
  readonly traces: ReadonlyArray<Exporter>
  readonly metrics: ReadonlyArray<Exporter>
  readonly metricExportIntervalMillis: number
  readonly metricExportTimeoutMillis: number
  readonly metricTemporality: "cumulative" | "delta"
  readonly serviceName: string
  readonly serviceInstanceId: string
}
