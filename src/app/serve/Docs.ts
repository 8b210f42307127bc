/**
 * The OpenAPI document and a page that shows it, neither of which loads anything
 * from elsewhere.
 *
 * @since 0.1.0
 */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as HttpApiSwagger from "effect/http-api/HttpApiSwagger"
import * as Layer from "effect/Layer"
import { Api } from "../Api.ts"

/**
 * Where the document is.
 *
 * @category constants
 * @since 0.1.0
 */
export const openapiPath = "/openapi.json"

/** Swagger's page holds its scripts itself: these are allowed by their hashes, and no others. */
const policyOf = (html: string): string => {
  const hashes = Array.from(
    html.matchAll(/<script[^>]*>([\s\S]*?)<\/script>/g),
    ([, script = ""]) => `'sha256-${createHash("sha256").update(script).digest("base64")}'`
  )
  return [
    "default-src 'none'",
    `script-src ${hashes.join(" ")}`,
    "style-src 'unsafe-inline'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; ")
}

const guarded = new WeakMap<HttpServerResponse.HttpServerResponse, HttpServerResponse.HttpServerResponse>()

// The page is made once, and so is its policy: two megabytes are hashed.
const guard = (page: HttpServerResponse.HttpServerResponse): HttpServerResponse.HttpServerResponse => {
  const known = guarded.get(page)
  if (known !== undefined) return known
  const html = page.body._tag === "Uint8Array" ? new TextDecoder().decode(page.body.body) : ""
  const response = HttpServerResponse.setHeader(page, "content-security-policy", policyOf(html))
  guarded.set(page, response)
  return response
}

/**
 * Serves `/docs`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, HttpRouter.HttpRouter> = HttpApiSwagger.layer(Api, {
  path: "/docs"
}).pipe(Layer.provide(HttpRouter.middleware((page) => Effect.map(page, guard)).layer))
