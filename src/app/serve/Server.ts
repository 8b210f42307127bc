/**
 * The server as a layer over the library: whatever `Store`, `Pubsub`, batchers
 * and watcher an application has, this makes them reachable over HTTP.
 *
 * @since 0.1.0
 */
import { createServer, type Server } from "node:http"
import type { Socket } from "node:net"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as Layer from "effect/Layer"
import type { MetadataBatcher } from "../../MetadataBatcher.ts"
import type { MetadataWatcher } from "../../MetadataWatcher.ts"
import type { Pubsub } from "../../Pubsub.ts"
import type { StatsBatcher } from "../../StatsBatcher.ts"
import type { Store } from "../../Store.ts"
import { Api } from "../Api.ts"
import * as Access from "./Access.ts"
import * as Agents from "./Agents.ts"
import * as Docs from "./Docs.ts"
import * as Guard from "./Guard.ts"
import * as Health from "./Health.ts"
import * as Ingest from "./Ingest.ts"
import { Lifecycle } from "./Lifecycle.ts"
import * as Overview from "./Overview.ts"
import * as Page from "./Page.ts"
import * as Pulses from "./Pulses.ts"
import * as Session from "./Session.ts"
import type { Settings } from "./Settings.ts"
import * as State from "./State.ts"
import type * as StoreProbe from "./StoreProbe.ts"
import type { Tokens } from "./Tokens.ts"
import * as Watchers from "./Watchers.ts"
import * as Watching from "./Watching.ts"

const routes = (settings: Settings) =>
  Layer.mergeAll(
    HttpApiBuilder.layer(Api, { openapiPath: Docs.openapiPath }).pipe(
      Layer.provide([Ingest.layer, Agents.layer, Watching.layer(settings), Session.layer(settings)]),
      Layer.provide([Guard.layerIntake, Access.layer])
    ),
    Docs.layer,
    Health.layer,
    Page.layer
  )

const whatIsShown = (settings: Settings) =>
  Layer.mergeAll(Overview.layer, Pulses.layer(settings)).pipe(Layer.provideMerge(State.layer))

/** What Node refuses before there is a request to answer, as JSON like the rest. */
const refuseRaw = (error: NodeJS.ErrnoException, socket: Socket): void => {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy()
  const [status, tag, message] =
    error.code === "HPE_HEADER_OVERFLOW"
      ? ["431 Request Header Fields Too Large", "HeadersTooLarge", "the headers are too large"]
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? ["408 Request Timeout", "RequestTimeout", "the request took too long to arrive"]
        : ["400 Bad Request", "BadRequest", "this is not HTTP"]
  const body = JSON.stringify({ _tag: tag, message })
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`
  )
}

/** Bytes of a request's headers; 200 ids to watch take half of it. */
const maxHeaderSize = 16 * 1024

/** A connection on which nothing moves for so long is dead, or its client does not read: heartbeats come four times as often. */
const silenceMs = 60_000

const makeServer = ({ requestTimeoutMs }: Settings): Server => {
  const server = createServer({
    maxHeaderSize,
    headersTimeout: requestTimeoutMs,
    // The guard answers earlier. This ends what it cannot see, such as a body that goes on after the answer.
    requestTimeout: requestTimeoutMs * 2,
    connectionsCheckingInterval: 1_000
  })
  server.timeout = silenceMs
  server.on("clientError", refuseRaw)
  return server
}

/** Seconds for requests to end once watchers have been sent away. */
const patience = "5 seconds"

const listen = (settings: Settings) =>
  Layer.unwrap(
    Effect.sync(() => {
      const server = makeServer(settings)
      const { host, port } = settings
      return Layer.effectDiscard(
        // Whoever has not left by then is cut off; the server would wait for him.
        Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
      ).pipe(
        Layer.provideMerge(
          NodeHttpServer.layer(() => server, { host, port, gracefulShutdownTimeout: patience })
        )
      )
    })
  )

const serve = (settings: Settings) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const guard = yield* Guard.make(settings)
      return HttpServer.serve(guard(yield* HttpRouter.toHttpEffect(routes(settings))))
    })
  )

// Built last, so that it is what happens first when the server closes.
const leave = ({ drainMs }: Settings) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { enter } = yield* Lifecycle
      const { dismiss } = yield* Watchers.Watchers
      yield* Effect.addFinalizer(() =>
        Effect.gen(function* () {
          yield* enter("draining")
          yield* Effect.sleep(drainMs)
          yield* enter("stopping")
          yield* dismiss
        })
      )
    })
  )

/**
 * Serves until the scope closes. Then it says that it is not ready, takes no
 * more work, sends watchers away with a hint when to come back and lets requests
 * end; what it has taken is the batchers' to write, which close after it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  settings: Settings
): Layer.Layer<
  HttpServer.HttpServer,
  ServeError,
  | Lifecycle
  | MetadataBatcher
  | MetadataWatcher
  | Pubsub
  | StatsBatcher
  | Store
  | StoreProbe.StoreProbe
  | Tokens
> =>
  leave(settings).pipe(
    Layer.provideMerge(serve(settings)),
    Layer.provideMerge(listen(settings)),
    Layer.provide(whatIsShown(settings)),
    Layer.provide(Watchers.layer(settings))
  )
