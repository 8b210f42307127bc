/**
 * The process's metrics in Prometheus's text format, over HTTP on the loopback
 * interface.
 *
 * @since 0.1.0
 */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServer from "effect/http/HttpServer"
import type { ServeError } from "effect/http/HttpServerError"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"

/**
 * Serves `/metrics`. Port 0 takes any free one; the address is that of the
 * `HttpServer` in context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (port: number): Layer.Layer<HttpServer.HttpServer, ServeError> =>
  HttpRouter.serve(PrometheusMetrics.layerHttp(), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(
      NodeHttpServer.layer(createServer, { host: "127.0.0.1", port, gracefulShutdownTimeout: "1 second" })
    )
  )
