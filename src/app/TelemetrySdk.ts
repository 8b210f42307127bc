/**
 * The part of `Telemetry` that needs OpenTelemetry's SDK, apart so that it is
 * loaded only when something is exported. The exporters, the batch processor
 * and the sampler read their own environment variables.
 *
 * @since 0.1.0
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import { DiagLogLevel, diag } from "@opentelemetry/api"
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http"
import {
  ConsoleMetricExporter,
  type MetricReader,
  PeriodicExportingMetricReader
} from "@opentelemetry/sdk-metrics"
import {
  BatchSpanProcessor,
  ConsoleSpanExporter,
  SimpleSpanProcessor,
  type SpanProcessor
} from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Exporter, Settings } from "./TelemetrySettings.ts"

/** How long the end of the program waits for the last of its telemetry to arrive, as OpenTelemetry's layer does. */
const deliveryMillis = 3_000

/**
 * Tells when the last of a signal could not be delivered, and lets the program
 * end all the same: `NodeSdk` takes a refusal for a defect, and gives up in
 * silence on a receiver that does not answer.
 */
const tellUndelivered = (
  signal: string,
  target: { forceFlush(): Promise<void>; shutdown(): Promise<void> }
): void => {
  let undelivered = false
  for (const method of ["forceFlush", "shutdown"] as const) {
    const end = target[method].bind(target)
    target[method] = async () => {
      const ended = end()
      if (undelivered) {
        ended.catch(() => {})
        return
      }
      const timeout = Promise.withResolvers<never>()
      const timer = setTimeout(
        () => timeout.reject(new Error(`no answer within ${deliveryMillis / 1000} s`)),
        deliveryMillis
      )
      await Promise.race([ended, timeout.promise]).catch((error: unknown) => {
        undelivered = true
        diag.warn(`the last ${signal} could not be delivered`, messageOf(error))
      })
      clearTimeout(timer)
    }
  }
}

const spanProcessor = (exporter: Exporter): SpanProcessor => {
  if (exporter === "console") return new SimpleSpanProcessor(new ConsoleSpanExporter())
  const processor = new BatchSpanProcessor(new OTLPTraceExporter())
  tellUndelivered("spans", processor)
  return processor
}

const metricReader = (exporter: Exporter, settings: Settings): MetricReader => {
  const reader = new PeriodicExportingMetricReader({
    exporter: exporter === "otlp" ? new OTLPMetricExporter() : new ConsoleMetricExporter(),
    exportIntervalMillis: settings.metricExportIntervalMillis,
    exportTimeoutMillis: Math.min(settings.metricExportTimeoutMillis, settings.metricExportIntervalMillis)
  })
  if (exporter === "otlp") tellUndelivered("metrics", reader)
  return reader
}

/** An exporter's error comes as JSON with its stack trace, or several of them as a list. */
const messageOf = (part: unknown): unknown => {
  if (Array.isArray(part)) return messageOf(part[0])
  if (part instanceof Error) return part.message
  if (typeof part !== "string" || !/^[[{]/.test(part)) return part
  try {
    const { message = part } = JSON.parse(part)
    return message
  } catch {
    return part
  }
}

// What the exporters have to say, that nothing answers at their endpoint for
// one, is said as everything else.
const layerDiagnostics = Layer.effectDiscard(
  Effect.gen(function* () {
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const warn = (...parts: ReadonlyArray<unknown>) => {
      runFork(Effect.logWarning("OpenTelemetry", ...parts.map(messageOf)))
    }
    const ignore = () => {}
    diag.setLogger(
      { error: warn, warn, info: ignore, debug: ignore, verbose: ignore },
      { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true }
    )
  })
)

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = (settings: Settings): Layer.Layer<never> =>
  Layer.merge(
    layerDiagnostics,
    NodeSdk.layer(() => ({
      resource: {
        serviceName: settings.serviceName,
        attributes: { "service.instance.id": settings.serviceInstanceId }
      },
      spanProcessor: settings.traces.map(spanProcessor),
      metricReader: settings.metrics.map((exporter) => metricReader(exporter, settings)),
      metricTemporality: settings.metricTemporality,
      // For the flush and the shutdown after it.
      shutdownTimeout: 2 * deliveryMillis
    }))
  )
