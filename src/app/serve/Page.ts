/**
 * The live page's files. They are read once, TypeScript with its types taken
 * off, so that nobody has to build anything and nothing but these is ever served.
 *
 * @since 0.1.0
 */
import { createHash } from "node:crypto"
import * as FileSystem from "node:fs/promises"
import { extname } from "node:path"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"

const directory = new URL("../page/", import.meta.url)

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".ts": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json"
}

/** Nothing from elsewhere, nothing inline, and no other site shows this one in a frame. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join("; ")

const isServed = (name: string): boolean =>
  types[extname(name)] !== undefined && !/^tsconfig\.json$|\.d\.ts$|\.test\.ts$/.test(name)

/** Node's own way of taking types off warns that it is experimental; this is the package it is made of. */
const stripTypes = async (source: string): Promise<string> => {
  const { transformSync } = await import("amaro")
  return transformSync(source, { mode: "strip-only" }).code
}

const read = async (name: string): Promise<Uint8Array> => {
  const file = new URL(name, directory)
  return extname(name) === ".ts"
    ? Buffer.from(await stripTypes(await FileSystem.readFile(file, "utf8")))
    : FileSystem.readFile(file)
}

const serve = (name: string, body: Uint8Array) => {
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 16)}"`
  const headers = {
    etag,
    // Looked up each time and sent only when it has changed.
    "cache-control": "no-cache",
    ...(extname(name) === ".html" ? { "content-security-policy": contentSecurityPolicy } : {})
  }
  const whole = HttpServerResponse.uint8Array(body, {
    contentType: types[extname(name)] ?? "application/octet-stream",
    headers
  })
  const unchanged = HttpServerResponse.empty({ status: 304, headers })
  return Effect.map(HttpServerRequest.HttpServerRequest, (request) =>
    request.headers["if-none-match"] === etag ? unchanged : whole
  )
}

const readAll = Effect.promise(async () => {
  const names = (await FileSystem.readdir(directory).catch(() => [])).filter(isServed)
  return Promise.all(names.map(async (name) => [name, await read(name)] as const))
})

/**
 * Serves `index.html` at `/` and every other file below `/assets/`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, HttpRouter.HttpRouter> = HttpRouter.use((router) =>
  Effect.gen(function* () {
    for (const [name, body] of yield* readAll) {
      yield* router.add("GET", name === "index.html" ? "/" : `/assets/${name}`, serve(name, body))
    }
  })
)
