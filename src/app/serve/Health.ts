/**
 * For whoever runs the server: whether it is alive, whether it is ready, and its
 * metrics.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import { Forbidden } from "../api/Errors.ts"
import { Lifecycle } from "./Lifecycle.ts"
import * as Refusal from "./Refusal.ts"
import { State } from "./State.ts"
import { bearerOf, Tokens } from "./Tokens.ts"

const text = (status: number, line: string) => HttpServerResponse.text(`${line}\n`, { status })

/** Alive also while the database is away: a restart would not bring it back. */
const healthz = HttpRouter.add("GET", "/healthz", text(200, "ok"))

const readyz = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const { phase } = yield* Lifecycle
    const { current } = yield* State
    yield* router.add(
      "GET",
      "/readyz",
      Effect.sync(() => {
        if (phase() !== "ready") return text(503, "stopping")
        const { storeError } = current()
        return storeError === null ? text(200, "ready") : text(503, storeError)
      })
    )
  })
)

/** Prometheus's text format. Needs a reader's token where tokens are needed. */
const metrics = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const tokens = yield* Tokens
    const type = "text/plain; version=0.0.4; charset=utf-8"
    const scrape = Effect.map(PrometheusMetrics.format(), (body) =>
      HttpServerResponse.text(body, { contentType: type })
    )
    yield* router.add(
      "GET",
      "/metrics",
      Effect.gen(function* () {
        const { headers } = yield* HttpServerRequest.HttpServerRequest
        const { role } = yield* tokens.verify(bearerOf(headers["authorization"]) ?? "")
        if (role === "agent") return yield* new Forbidden({ message: "this is not for the role agent" })
        return yield* scrape
      }).pipe(
        Effect.catchTag(["Unauthorized", "Forbidden"], (error) => Effect.succeed(Refusal.respond(error)))
      )
    )
  })
)

/**
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, HttpRouter.HttpRouter | Lifecycle | State | Tokens> =
  Layer.mergeAll(healthz, readyz, metrics)
