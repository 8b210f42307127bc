/**
 * Traces and metrics over OTLP, set up by OpenTelemetry's standard environment
 * variables.
 *
 * A signal is exported if its exporter is named (`OTEL_TRACES_EXPORTER`,
 * `OTEL_METRICS_EXPORTER`: `otlp`, `console` or `none`) or an endpoint is
 * (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
 * `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`). With neither, or with
 * `OTEL_SDK_DISABLED=true`, OpenTelemetry is not even loaded.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/**
 * Where a signal goes.
 *
 * @category models
 * @since 0.1.0
 */
export type Exporter = "otlp" | "console" | "none"

const setting = (name: string) => Config.withDefault(Config.String(name), "")

const exporterOf = Effect.fnUntraced(function* (
  signal: "TRACES" | "METRICS"
): Effect.fn.Return<Exporter, Config.ConfigError> {
  const name = yield* setting(`OTEL_${signal}_EXPORTER`)
  if (name === "otlp" || name === "console" || name === "none") return name
  if (name !== "") yield* Effect.logWarning(`OTEL_${signal}_EXPORTER: unknown exporter "${name}"`)
  const endpoint =
    (yield* setting(`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`)) ||
    (yield* setting("OTEL_EXPORTER_OTLP_ENDPOINT"))
  return name === "" && endpoint !== "" ? "otlp" : "none"
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
    const isDisabled = (yield* setting("OTEL_SDK_DISABLED")).toLowerCase() === "true"
    const traces = yield* exporterOf("TRACES")
    const metrics = yield* exporterOf("METRICS")
    if (isDisabled || (traces === "none" && metrics === "none")) return Layer.empty
    const sdk = yield* Effect.promise(() => import("./TelemetrySdk.ts"))
    return sdk.layer({ traces, metrics })
  })
)
