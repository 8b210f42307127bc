/**
 * How replicas tell each other which agents changed.
 *
 * A `Pubsub` carries short text payloads over named channels, to every
 * subscriber in every process. Delivery is at most once: what is published
 * while a subscriber's connection is down is lost to it. It is told so by a
 * `Resync` signal, upon which it reads what it shows anew.
 *
 * `PgPubsub` is PostgreSQL's `NOTIFY`, `RedisPubsub` is Redis, for when `NOTIFY`
 * is the limit; `layerMemory` reaches the subscribers of one process, for tests
 * and demos.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { PubsubError } from "./internal/pubsub/error.ts"
import { check } from "./internal/pubsub/limits.ts"
import { Message, Resync, type Signal } from "./internal/pubsub/signal.ts"
import * as Subscribers from "./internal/pubsub/subscribers.ts"

export {
  Invalid,
  invalid,
  PubsubError,
  PubsubErrorReason,
  Unavailable,
  unavailable
} from "./internal/pubsub/error.ts"
export { Message, Resync, type Signal } from "./internal/pubsub/signal.ts"

/**
 * Text payloads over named channels, across processes.
 *
 * @category services
 * @since 0.1.0
 */
export class Pubsub extends Context.Service<
  Pubsub,
  {
    /**
     * Sends every payload or, on failure, none, in order and in one round trip
     * where the transport can. Equal payloads of one call may arrive as one.
     */
    readonly publish: (channel: string, payloads: ReadonlyArray<string>) => Effect.Effect<void, PubsubError>
    /**
     * Subscribes until the scope closes, which shuts the queue down. When it
     * returns, the subscription stands: whatever is published from then on
     * arrives. A subscriber that falls hundreds of messages behind finds a
     * `Resync` in their place.
     */
    readonly subscribe: (channel: string) => Effect.Effect<Queue.Dequeue<Signal>, PubsubError, Scope.Scope>
  }
>()("effect-metadata-batcher/Pubsub") {}

/**
 * A pubsub in the process's memory, and a way to disturb it.
 *
 * @category models
 * @since 0.1.0
 */
export interface MemoryPubsub {
  readonly pubsub: Pubsub["Service"]
  /** Sends every subscriber a `Resync`, as after a connection was lost and is back. */
  readonly resync: Effect.Effect<void>
}

/**
 * Makes a pubsub in memory that a test can disturb. It refuses what PostgreSQL
 * refuses.
 *
 * **Example** (Telling subscribers to read anew)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { Pubsub } from "effect-metadata-batcher"
 * import * as Effect from "effect/Effect"
 * import * as Queue from "effect/Queue"
 *
 * const program = Effect.gen(function* () {
 *   const { pubsub, resync } = yield* Pubsub.makeMemory
 *   const signals = yield* pubsub.subscribe("news")
 *   yield* pubsub.publish("news", ["hello"])
 *   yield* resync
 *   assert.deepEqual(yield* Queue.takeAll(signals), [Pubsub.Message("hello"), Pubsub.Resync])
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeMemory: Effect.Effect<MemoryPubsub> = Effect.sync(() => {
  const subscribers = Subscribers.make()
  return {
    pubsub: Pubsub.of({
      publish: (channel, payloads) =>
        Effect.map(check(channel, payloads), () => {
          for (const payload of new Set(payloads)) subscribers.deliverUnsafe(channel, Message(payload))
        }),
      subscribe: (channel) => Effect.andThen(check(channel), subscribers.add(channel))
    }),
    resync: Effect.sync(() => {
      for (const channel of subscribers.channels()) subscribers.deliverUnsafe(channel, Resync)
    })
  }
})

/**
 * A pubsub that reaches the subscribers of this process. `makeMemory` gives one
 * that a test can disturb.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Pubsub> = Layer.effect(
  Pubsub,
  Effect.map(makeMemory, ({ pubsub }) => pubsub)
)
