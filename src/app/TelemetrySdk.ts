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
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Exporter } from "./Telemetry.ts"

const serviceName = "effect-metadata-batcher"

const spanProcessor = (exporter: Exporter): SpanProcessor | undefined => {
  if (exporter === "none") return undefined
  return exporter === "otlp"
    ? new BatchSpanProcessor(new OTLPTraceExporter())
    : new SimpleSpanProcessor(new ConsoleSpanExporter())
}

const metricReader = Effect.fnUntraced(function* (
  exporter: Exporter
): Effect.fn.Return<MetricReader | undefined, Config.ConfigError> {
  if (exporter === "none") return undefined
  const exportIntervalMillis = yield* Config.withDefault(Config.Int("OTEL_METRIC_EXPORT_INTERVAL"), 60_000)
  const timeout = yield* Config.withDefault(Config.Int("OTEL_METRIC_EXPORT_TIMEOUT"), 30_000)
  return new PeriodicExportingMetricReader({
    exporter: exporter === "otlp" ? new OTLPMetricExporter() : new ConsoleMetricExporter(),
    exportIntervalMillis,
    exportTimeoutMillis: Math.min(timeout, exportIntervalMillis)
  })
})

// An exporter's error comes as JSON with its stack trace.
const describe = (part: unknown): unknown =>
  (typeof part === "string" ? /"message":"([^"]*)"/.exec(part)?.[1] : undefined) ?? part

// What the exporters have to say, that nothing answers at their endpoint for
// one, is said as everything else.
const layerDiagnostics = Layer.effectDiscard(
  Effect.gen(function* () {
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const warn = (...parts: ReadonlyArray<unknown>) => {
      runFork(Effect.logWarning("OpenTelemetry", ...parts.map(describe)))
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
export const layer = (exporters: {
  readonly traces: Exporter
  readonly metrics: Exporter
}): Layer.Layer<never, Config.ConfigError> =>
  Layer.merge(
    layerDiagnostics,
    NodeSdk.layer(
      Effect.gen(function* () {
        const isNamed =
          (yield* Config.withDefault(Config.String("OTEL_SERVICE_NAME"), "")) !== "" ||
          (yield* Config.withDefault(Config.String("OTEL_RESOURCE_ATTRIBUTES"), "")).includes("service.name=")
        return {
          resource: isNamed ? undefined : { serviceName },
          spanProcessor: spanProcessor(exporters.traces),
          metricReader: yield* metricReader(exporters.metrics)
        }
      })
    )
  )
