/**
 * The metrics of a pubsub, as handles.
 *
 * `PgPubsub` and `RedisPubsub` update them; read them through an exporter, or
 * with `Metric.value` in a test. Messages are counted once per process, however
 * many subscribers a channel has, and heartbeats are not among them.
 *
 * No channel is ever a label: the number of series is fixed.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Seconds from publishing a heartbeat to receiving it: 0.5 ms to 10 s. Through
 * PostgreSQL on one machine, half arrive within 1 ms and 99 % within 6 ms.
 *
 * @category boundaries
 * @since 0.1.0
 */
export const deliveryLatencyBoundaries: ReadonlyArray<number> = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
]

/**
 * The handles of one pubsub. Update the labelled one through
 * `Metric.withAttributes(handle, { reason })`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PubsubMetrics {
  /**
   * 0 from when the connection that listens was lost, or could not be made, until
   * it stands; otherwise 1, also while nobody needs it.
   */
  readonly connected: Metric.Gauge<number>
  /** Times the connection stood again after it was lost. */
  readonly reconnects: Metric.Counter<number>
  /**
   * `Resync` signals sent to subscribers, by `reason`: `reconnect`, or `backlog`
   * for a subscriber that fell too far behind.
   */
  readonly resyncs: Metric.Counter<number>
  /** Messages received. */
  readonly messagesReceived: Metric.Counter<number>
  /** Messages published. */
  readonly messagesSent: Metric.Counter<number>
  /** Bytes of the payloads received. */
  readonly receivedBytes: Metric.Counter<number>
  /** Bytes of the payloads published. */
  readonly sentBytes: Metric.Counter<number>
  /** Histogram of seconds from publishing a heartbeat to receiving it. */
  readonly deliveryLatency: Metric.Histogram<number>
}

/**
 * Makes the handles under a prefix.
 *
 * **Example** (Names)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { PubsubMetrics } from "effect-metadata-batcher"
 *
 * const metrics = PubsubMetrics.make({ prefix: "coderd_agentapi" })
 *
 * assert.equal(metrics.connected.id, "coderd_agentapi_pubsub_connected")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: { readonly prefix: string }): PubsubMetrics => {
  const name = (suffix: string) => `${options.prefix}_pubsub_${suffix}`
  // OpenTelemetry's units. Without one a metric counts as a ratio, which the way to Prometheus puts into a gauge's name.
  const counter = (suffix: string, unit: string, description: string) =>
    Metric.counter(name(suffix), { description, incremental: true, attributes: { unit } })
  return {
    connected: Metric.gauge(name("connected"), {
      description: "0 while the connection that listens is lost or cannot be made, otherwise 1",
      attributes: { unit: "{connection}" }
    }),
    reconnects: counter("reconnects_total", "{connection}", "Connections made again after a loss"),
    resyncs: counter("resyncs_total", "{signal}", "Resync signals sent to subscribers"),
    messagesReceived: counter("messages_received_total", "{message}", "Messages received"),
    messagesSent: counter("messages_sent_total", "{message}", "Messages published"),
    receivedBytes: counter("received_bytes_total", "By", "Bytes of the payloads received"),
    sentBytes: counter("sent_bytes_total", "By", "Bytes of the payloads published"),
    deliveryLatency: Metric.histogram(name("delivery_latency_seconds"), {
      description: "Seconds from publishing a heartbeat to receiving it",
      boundaries: deliveryLatencyBoundaries,
      attributes: { unit: "s" }
    })
  }
}
