/**
 * Everybody who holds a stream open: how many there may be, what all of them are
 * told at once, and how they are sent away.
 *
 * @since 0.1.0
 */
import { Buffer } from "node:buffer"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TooManyWatchers } from "../api/Errors.ts"
import { Caller } from "../api/Security.ts"
import * as Outbox from "./Outbox.ts"
import type { Settings } from "./Settings.ts"

/**
 * The kinds of events that all watchers of a kind get alike.
 *
 * @category models
 * @since 0.1.0
 */
export type Topic = "state" | "pulse" | "overview"

/**
 * @category models
 * @since 0.1.0
 */
export interface Watcher {
  readonly outbox: Outbox.Outbox
  readonly topics: ReadonlySet<Topic>
  /** Its place among all, from 0 to 1; those who come one after the other are far apart. */
  readonly phase: number
  readonly tokenId: string
  readonly expiresAt: number | undefined
}

/**
 * @category services
 * @since 0.1.0
 */
export class Watchers extends Context.Service<
  Watchers,
  {
    /** Lets a watcher in until the scope, that of its request, closes. */
    readonly join: (
      topics: ReadonlyArray<Topic>
    ) => Effect.Effect<Watcher, TooManyWatchers, Caller | Scope.Scope>
    /** Those who want the topic. */
    readonly of: (topic: Topic) => Iterable<Watcher>
    readonly count: () => number
    /** Sends all away, with a hint when to come back. */
    readonly dismiss: Effect.Effect<void>
  }
>()("effect-metadata-batcher/app/Watchers") {}

/** Seconds between two comments that keep a connection alive, and tell when it is not. */
const heartbeat = "15 seconds"
const alive = [Buffer.from(": alive\n\n")]

/** Milliseconds until a client that lost the connection tries again. */
const retryMs = 2_000

// Its multiples fill the range from 0 to 1 evenly, however many there are.
const goldenRatio = (Math.sqrt(5) - 1) / 2

/**
 * The place, from 0 to 1, of who joined after so many others.
 *
 * @category accessors
 * @since 0.1.0
 */
export const phaseOf = (others: number): number => (others * goldenRatio) % 1

/** So that those who are sent away together do not come back together. */
const farewell = (): ReadonlyArray<Uint8Array> => [
  Buffer.from(`retry: ${500 + Math.floor(Math.random() * 2_000)}\n`),
  Outbox.event("stopping", {})
]

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* ({
  maxWatchers,
  maxWatchersPerToken
}: Pick<Settings, "maxWatchers" | "maxWatchersPerToken">): Effect.fn.Return<
  Watchers["Service"],
  never,
  Scope.Scope
> {
  const clock = yield* Clock.Clock
  const watchers = new Set<Watcher>()
  const perToken = new Map<string, number>()

  let joined = 0
  let areDismissed = false

  const sendAway = (watcher: Watcher) => {
    watcher.outbox.put("stopping", farewell)
    watcher.outbox.end()
  }

  const admit = (watcher: Watcher) => {
    const ofToken = perToken.get(watcher.tokenId) ?? 0
    if (watchers.size >= maxWatchers) {
      return Effect.fail(
        new TooManyWatchers({ message: `the server has ${maxWatchers} watchers, its limit` })
      )
    }
    if (ofToken >= maxWatchersPerToken) {
      return Effect.fail(
        new TooManyWatchers({ message: `the token has ${maxWatchersPerToken} watchers, its limit` })
      )
    }
    watchers.add(watcher)
    perToken.set(watcher.tokenId, ofToken + 1)
    // Its request was let in just before the server began to stop.
    if (areDismissed) sendAway(watcher)
    return Effect.void
  }

  const leave = (watcher: Watcher) => {
    watchers.delete(watcher)
    const ofToken = (perToken.get(watcher.tokenId) ?? 0) - 1
    if (ofToken > 0) perToken.set(watcher.tokenId, ofToken)
    else perToken.delete(watcher.tokenId)
  }

  const beat = Effect.sync(() => {
    const now = clock.currentTimeMillisUnsafe()
    for (const watcher of watchers) {
      if (watcher.expiresAt !== undefined && watcher.expiresAt <= now) sendAway(watcher)
      else watcher.outbox.put("alive", () => alive)
    }
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(heartbeat), beat)))

  return Watchers.of({
    join: (topics) =>
      Effect.flatMap(Caller, ({ expiresAt, tokenId }) => {
        const phase = phaseOf(joined++)
        const watcher = { outbox: Outbox.make(), topics: new Set(topics), phase, tokenId, expiresAt }
        return Effect.acquireRelease(
          Effect.as(
            Effect.suspend(() => admit(watcher)),
            watcher
          ),
          (watcher) => Effect.sync(() => leave(watcher))
        )
      }),
    *of(topic) {
      for (const watcher of watchers) if (watcher.topics.has(topic)) yield watcher
    },
    count: () => watchers.size,
    dismiss: Effect.sync(() => {
      areDismissed = true
      for (const watcher of watchers) sendAway(watcher)
    })
  })
})

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  settings: Pick<Settings, "maxWatchers" | "maxWatchersPerToken">
): Layer.Layer<Watchers> => Layer.effect(Watchers, make(settings))

/**
 * The response that sends what the outbox holds, for as long as the client
 * stays. Who asks for `text/event-stream`, as `EventSource` does, is told how
 * soon to come back after a loss; Effect's client would take that for the end.
 *
 * @category responses
 * @since 0.1.0
 */
export const respond = ({
  outbox
}: Watcher): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  HttpServerRequest.HttpServerRequest
> =>
  Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) => {
    const isEventSource = headers["accept"]?.includes("text/event-stream") ?? false
    const greeting = Buffer.from(isEventSource ? `retry: ${retryMs}\n\n` : ": welcome\n\n")
    return HttpServerResponse.stream(Stream.concat(Stream.make(greeting), outbox.stream), {
      contentType: "text/event-stream",
      // Proxies such as nginx would hold events back otherwise.
      headers: { "x-accel-buffering": "no" }
    })
  })
