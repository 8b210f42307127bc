/**
 * Traces and metrics over OTLP, set up by OpenTelemetry's standard environment
 * variables.
 *
 * A signal is exported if its exporters are named (`OTEL_TRACES_EXPORTER`,
 * `OTEL_METRICS_EXPORTER`: `otlp`, `console`, both with a comma, or `none`) or
 * an endpoint is (`OTEL_EXPORTER_OTLP_ENDPOINT`,
 * `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`).
 * With neither, or with `OTEL_SDK_DISABLED=true`, OpenTelemetry is not even
 * loaded. A value that makes no sense is warned about and taken for none, as
 * OpenTelemetry's specification asks.
 *
 * @since 0.1.0
 */
import { randomUUID } from "node:crypto"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { Exporter } from "./TelemetrySettings.ts"

const setting = (name: string) =>
  Effect.map(Config.withDefault(Config.String(name), ""), (text) => text.trim())

const warn = (name: string, value: string, expected: string) =>
  Effect.logWarning(`${name}: expected ${expected}, not "${value}"`)

const exportersOf = Effect.fnUntraced(function* (
  signal: "TRACES" | "METRICS"
): Effect.fn.Return<ReadonlyArray<Exporter>, Config.ConfigError> {
  const variable = `OTEL_${signal}_EXPORTER`
  const list = yield* setting(variable)
  const endpoint =
    (yield* setting(`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`)) ||
    (yield* setting("OTEL_EXPORTER_OTLP_ENDPOINT"))
  if (list === "") return endpoint === "" ? [] : ["otlp"]
  const exporters = new Set<Exporter>()
  for (const name of list.split(",").map((name) => name.trim())) {
    if (name === "otlp" || name === "console") exporters.add(name)
    else if (name !== "none") yield* warn(variable, name, "otlp, console or none")
  }
  return Array.from(exporters)
})

const checkProtocols = Effect.gen(function* () {
  for (const signal of ["", "TRACES_", "METRICS_"]) {
    const variable = `OTEL_EXPORTER_OTLP_${signal}PROTOCOL`
    const protocol = yield* setting(variable)
    if (protocol !== "" && protocol !== "http/json") {
      yield* warn(variable, protocol, "http/json, which is what is sent")
    }
  }
})

const millis = Effect.fnUntraced(function* (variable: string, otherwise: number) {
  const text = yield* setting(variable)
  const value = Number(text)
  if (text !== "" && Number.isSafeInteger(value) && value > 0) return value
  if (text !== "") yield* warn(variable, text, "a whole number of milliseconds")
  return otherwise
})

const temporality = Effect.gen(function* () {
  const variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
  const preference = (yield* setting(variable)).toLowerCase()
  if (preference === "delta") return "delta"
  if (preference !== "" && preference !== "cumulative") {
    yield* warn(variable, preference, "cumulative or delta")
  }
  return "cumulative"
})

const resource = Effect.gen(function* () {
  // As `NodeSdk` reads them; what it cannot read it warns about.
  const attributes: Readonly<Record<string, string>> = yield* Config.Record(
    Schema.StringFromUriComponent,
    Schema.StringFromUriComponent,
    "OTEL_RESOURCE_ATTRIBUTES",
    { trim: true, keepEmptyValues: true }
  ).pipe(
    Config.withDefault({}),
    Effect.orElseSucceed(() => ({}))
  )
  return {
    serviceName:
      (yield* setting("OTEL_SERVICE_NAME")) || attributes["service.name"] || "effect-metadata-batcher",
    // Replicas are told apart by it.
    serviceInstanceId: attributes["service.instance.id"] || randomUUID()
  }
})

/**
 * Exports what is built and run within it. Provide it outermost: it sends what
 * is left when it closes, which must be after the last flush of the batchers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, Config.ConfigError> = Layer.unwrap(
  Effect.gen(function* () {
    if ((yield* setting("OTEL_SDK_DISABLED")).toLowerCase() === "true") return Layer.empty
    const traces = yield* exportersOf("TRACES")
    const metrics = yield* exportersOf("METRICS")
    if (traces.length === 0 && metrics.length === 0) return Layer.empty
    if (traces.includes("otlp") || metrics.includes("otlp")) yield* checkProtocols
    const sdk = yield* Effect.promise(() => import("./TelemetrySdk.ts"))
    return sdk.layer({
      traces,
      metrics,
      metricExportIntervalMillis: yield* millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
      metricExportTimeoutMillis: yield* millis("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
      metricTemporality: yield* temporality,
      ...(yield* resource)
    })
  })
)
