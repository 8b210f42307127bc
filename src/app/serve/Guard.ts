/**
 * What every request passes on its way in and out: where it comes from, what it
 * says it carries, how large it is and how long it takes; and that whatever goes
 * wrong is told in one line.
 *
 * Without keys anybody may do anything who reaches the server, and a page of
 * another site in a browser on the same machine must not be one of them: its
 * requests carry its own `Origin`, or a `Host` that was made to point here.
 *
 * @since 0.1.0
 */
import * as ByteSize from "effect/ByteSize"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { BodyTooLarge, Forbidden, UnsupportedMediaType } from "../api/Errors.ts"
import { Intake } from "../api/Security.ts"
import { Lifecycle } from "./Lifecycle.ts"
import * as Refusal from "./Refusal.ts"
import { isLoopback, type Settings } from "./Settings.ts"
import { Tokens } from "./Tokens.ts"

type Request = HttpServerRequest.HttpServerRequest

const hostnameOf = (host: string): string => host.replace(/:\d+$/, "").toLowerCase()

const wrongHost = new Forbidden({ message: "the Host header names another server" })
const wrongOrigin = new Forbidden({ message: "the request comes from a page of another origin" })
const notJson = new UnsupportedMediaType({ message: "the body has to be application/json" })
const encoded = new UnsupportedMediaType({ message: "the body must not be compressed" })

type Check = (request: Request) => Forbidden | UnsupportedMediaType | BodyTooLarge | undefined

const checkSource = (settings: Settings, tokensNeeded: boolean): Check => {
  const names = new Set(settings.allowedHosts.map((name) => name.toLowerCase()))
  const isChecked = names.size > 0 || !tokensNeeded
  const isOurs = (name: string) => isLoopback(name) || names.has(name)
  return ({ headers }) => {
    const forwarded = settings.trustProxy ? headers["x-forwarded-host"] : undefined
    const host = forwarded ?? headers["host"] ?? ""
    if (isChecked && !isOurs(hostnameOf(host))) return wrongHost
    const origin = headers["origin"]
    if (origin === undefined) return undefined
    return URL.canParse(origin) && new URL(origin).host === host.toLowerCase() ? undefined : wrongOrigin
  }
}

const checkBody =
  ({ maxBody }: Settings): Check =>
  ({ headers, method }) => {
    if (method !== "POST" && method !== "PUT" && method !== "PATCH") return undefined
    const [type = ""] = (headers["content-type"] ?? "").split(";", 1)
    if (type.trim().toLowerCase() !== "application/json") return notJson
    if ((headers["content-encoding"] ?? "identity") !== "identity") return encoded
    return Number(headers["content-length"] ?? 0) > maxBody
      ? new BodyTooLarge({ message: `the body is larger than ${maxBody} bytes` })
      : undefined
  }

/** Seconds after which a client that was sent away may try again. */
const retryAfter = "1"

const harden = (
  response: HttpServerResponse.HttpServerResponse,
  isStopping: boolean
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeaders(response, {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    ...(response.headers["cache-control"] === undefined ? { "cache-control": "no-store" } : {}),
    ...(response.status === 429 || response.status === 503 ? { "retry-after": retryAfter } : {}),
    ...(isStopping ? { connection: "close" } : {})
  })

/** Of a request without a body it is the answer that is late. */
const tooLate = ({ method }: Request): HttpServerResponse.HttpServerResponse =>
  Refusal.respond(method === "POST" ? Refusal.tooSlow : Refusal.noAnswer)

const explain = (cause: Cause.Cause<unknown>): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
  const refused = Refusal.fromCause(cause)
  if (refused !== undefined) return Effect.succeed(Refusal.respond(refused))
  return Effect.as(Effect.logError("a request failed", cause), Refusal.respond(Refusal.internal))
}

/**
 * Guards all that the handler serves.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  settings: Settings
): Effect.fn.Return<
  <E, R>(
    handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
  ) => Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    never,
    R | HttpServerRequest.HttpServerRequest | Scope.Scope
  >,
  never,
  Lifecycle | Tokens
> {
  const { phase } = yield* Lifecycle
  const { needed } = yield* Tokens
  const source = checkSource(settings, needed)
  const body = checkBody(settings)
  const maxBodySize = ByteSize.bytes(settings.maxBody)

  return (handler) => {
    // A handler that is interrupted while it reads the body takes the connection
    // with it. So it goes on until the answer is sent, which closes the scope.
    const answered = Effect.forkScoped(handler).pipe(
      Effect.flatMap(Fiber.join),
      Effect.provideService(HttpIncomingMessage.MaxBodySize, maxBodySize),
      Effect.timeoutOrElse({
        duration: settings.requestTimeoutMs,
        orElse: () => Effect.map(HttpServerRequest.HttpServerRequest, tooLate)
      }),
      Effect.catchCause(explain)
    )
    return Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      const refused = phase() === "stopping" ? Refusal.stopping : (source(request) ?? body(request))
      return Effect.map(
        refused === undefined ? answered : Effect.succeed(Refusal.respond(refused)),
        (response) => harden(response, phase() === "stopping")
      )
    })
  }
})

/**
 * Says what is wrong with a request that does not match its schema.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerIntake: Layer.Layer<Intake> = HttpApiMiddleware.layerSchemaErrorTransform(
  Intake,
  (error) =>
    error.kind === "Body" || error.kind === "ResponseHeaders"
      ? Effect.die(error)
      : Effect.fail(Refusal.badRequest(error))
)
