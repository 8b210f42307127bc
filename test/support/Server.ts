/**
 * The HTTP server within the test's process, on a store in memory that can be
 * taken away, and requests to it over a real socket.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { AgentStatsRow } from "../../src/AgentStats.ts"
import * as Lifecycle from "../../src/app/serve/Lifecycle.ts"
import * as ApiServer from "../../src/app/serve/Server.ts"
import { defaults, type Settings } from "../../src/app/serve/Settings.ts"
import * as StoreProbe from "../../src/app/serve/StoreProbe.ts"
import * as Tokens from "../../src/app/serve/Tokens.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../../src/MetadataWatcher.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as StatsBatcher from "../../src/StatsBatcher.ts"
import * as Store from "../../src/Store.ts"

export interface Options {
  readonly settings?: Partial<Settings> | undefined
  readonly batcher?: MetadataBatcher.Options | undefined
  readonly keys?: ReadonlyArray<string> | undefined
}

export interface TestServer {
  readonly url: string
  readonly metadata: MetadataBatcher.MetadataBatcher["Service"]
  readonly statsBatcher: StatsBatcher.StatsBatcher["Service"]
  readonly store: Store.Store["Service"]
  readonly pubsub: Pubsub.Pubsub["Service"]
  readonly tokens: Tokens.Tokens["Service"]
  readonly lifecycle: Lifecycle.Lifecycle["Service"]
  /** Reports of statistics in the store. */
  readonly stats: Effect.Effect<ReadonlyArray<AgentStatsRow>>
  /** Takes the store away, or brings it back. `"silent"` is one that never answers. */
  readonly setAway: (isAway: boolean | "silent") => void
  /** Waits until a store that never answers has been asked. */
  readonly asked: Effect.Effect<void>
  readonly fetch: (path: string, init?: RequestInit) => Effect.Effect<Response>
  /** Sends JSON. */
  readonly post: (path: string, body: unknown, token?: string) => Effect.Effect<Response>
}

export const bearer = (token: string | undefined): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` }

const makeStore = Effect.map(Store.makeMemory, ({ stats, store }) => {
  let isAway: boolean | "silent" = false
  const asked = Deferred.makeUnsafe<void>()
  const unless =
    <A, B extends ReadonlyArray<unknown>>(operation: (...args: B) => Effect.Effect<A, Store.StoreError>) =>
    (...args: B) =>
      Effect.suspend(() =>
        isAway === false
          ? operation(...args)
          : isAway === "silent"
            ? Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
            : Effect.fail(Store.unavailable(new Error("connection refused")))
      )
  return {
    stats,
    asked: Deferred.await(asked),
    setAway: (next: boolean | "silent") => {
      isAway = next
    },
    store: Store.Store.of({
      batchUpdateMetadata: unless(store.batchUpdateMetadata),
      batchInsertStats: unless(store.batchInsertStats),
      metadataOf: unless(store.metadataOf),
      agents: unless(store.agents),
      deleteAgents: unless(store.deleteAgents)
    })
  }
})

/** Serves on a free port of the loopback interface until the scope closes. */
export const start = Effect.fnUntraced(function* (options: Options = {}) {
  const { asked, setAway, stats, store } = yield* makeStore
  const settings = { ...defaults, port: 0, ...options.settings }
  const context = yield* Layer.build(
    ApiServer.layer(settings).pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          MetadataBatcher.layer({ interval: "1 second", ...options.batcher }),
          StatsBatcher.layer(),
          MetadataWatcher.layer()
        )
      ),
      Layer.provideMerge(StoreProbe.layer),
      Layer.provideMerge(
        Layer.mergeAll(
          Layer.succeed(Store.Store, store),
          Pubsub.layerMemory,
          Lifecycle.layer,
          Tokens.layer((options.keys ?? []).map((key) => Redacted.make(key)))
        )
      )
    )
  )
  const url = HttpServer.formatAddress(Context.get(context, HttpServer.HttpServer).address)
  const send = (path: string, init?: RequestInit) =>
    Effect.promise((signal) => fetch(url + path, { signal, ...init }))
  const server: TestServer = {
    url,
    metadata: Context.get(context, MetadataBatcher.MetadataBatcher),
    statsBatcher: Context.get(context, StatsBatcher.StatsBatcher),
    store,
    pubsub: Context.get(context, Pubsub.Pubsub),
    tokens: Context.get(context, Tokens.Tokens),
    lifecycle: Context.get(context, Lifecycle.Lifecycle),
    stats,
    setAway,
    asked,
    fetch: send,
    post: (path, body, token) =>
      send(path, {
        method: "POST",
        headers: { "content-type": "application/json", ...bearer(token) },
        body: JSON.stringify(body)
      })
  }
  return server
})

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what it got
type Json = any

/** Lets sockets have their turn. */
export const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

export const json = (response: Response): Effect.Effect<Json> => Effect.promise(() => response.json())

export interface Received {
  readonly id: string | undefined
  readonly event: string | undefined
  readonly data: Json
  /** The block as it came, if it is no event: a comment, a `retry`. */
  readonly text: string
}

const parse = (text: string): Received => {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(text)?.[1]
  const data = field("data")
  return {
    id: field("id"),
    event: field("event"),
    data: data === undefined ? undefined : JSON.parse(data),
    text
  }
}

/** Reads a stream of events, block by block; `undefined` at its end. */
export const events = (response: Response): Effect.Effect<Received | undefined> => {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  const decoder = new TextDecoder()
  let buffer = ""
  return Effect.promise(async () => {
    while (true) {
      const end = buffer.indexOf("\n\n")
      if (end >= 0) {
        const text = buffer.slice(0, end)
        buffer = buffer.slice(end + 2)
        return parse(text)
      }
      const { done, value } = await reader.read()
      if (done) return undefined
      buffer += decoder.decode(value, { stream: true })
    }
  })
}

/** The next event with this name. */
export const nextOf = (next: Effect.Effect<Received | undefined>, name: string): Effect.Effect<Received> =>
  Effect.flatMap(next, (received) => {
    if (received === undefined) return Effect.die(new Error(`the stream ended before ${name}`))
    return received.event === name ? Effect.succeed(received) : nextOf(next, name)
  })
