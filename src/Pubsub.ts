/**
 * How replicas tell each other which agents changed.
 *
 * A `Pubsub` carries short text payloads over named channels, to every
 * subscriber in every process. Delivery is at most once: what is published
 * while a subscriber's connection is down is lost to it. It is told so by a
 * `Resync` signal, upon which it reads what it shows anew.
 *
 * `PgPubsub` is PostgreSQL's `NOTIFY`; `layerMemory` reaches the subscribers of
 * one process, for tests and demos.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/**
 * A payload that was published.
 *
 * @category models
 * @since 0.1.0
 */
export interface Message {
  readonly _tag: "Message"
  readonly payload: string
}

/**
 * Messages may have been missed: read anew whatever they would have changed.
 * Sent once the subscription stands again, before any message that follows.
 *
 * @category models
 * @since 0.1.0
 */
export interface Resync {
  readonly _tag: "Resync"
}

/**
 * What a subscriber receives.
 *
 * @category models
 * @since 0.1.0
 */
export type Signal = Message | Resync

/**
 * @category constructors
 * @since 0.1.0
 */
export const Message = (payload: string): Message => ({ _tag: "Message", payload })

/**
 * @category constructors
 * @since 0.1.0
 */
export const Resync: Resync = { _tag: "Resync" }

/**
 * The channel cannot be reached now: nothing was published, or it is not known
 * whether it was.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Schema.Error<Unavailable>("effect-metadata-batcher/Pubsub/Unavailable")({
  _tag: Schema.tag("Unavailable"),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the pubsub is unavailable: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/**
 * The channel's name or a payload is one the transport does not carry:
 * PostgreSQL takes channel names of at most 63 bytes and payloads of at most
 * 7,999.
 *
 * @category errors
 * @since 0.1.0
 */
export class Invalid extends Schema.Error<Invalid>("effect-metadata-batcher/Pubsub/Invalid")({
  _tag: Schema.tag("Invalid"),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the pubsub cannot carry this: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/**
 * @category errors
 * @since 0.1.0
 */
export const PubsubErrorReason = Schema.Union([Unavailable, Invalid])

/**
 * @category errors
 * @since 0.1.0
 */
export type PubsubErrorReason = Unavailable | Invalid

/**
 * The failure of every `Pubsub` operation, with its `reason`.
 *
 * @category errors
 * @since 0.1.0
 */
export class PubsubError extends Schema.Error<PubsubError>("effect-metadata-batcher/Pubsub/PubsubError")({
  _tag: Schema.tag("PubsubError"),
  reason: PubsubErrorReason
}) {
  override get message(): string {
    return this.reason.message
  }
}

/**
 * Text payloads over named channels, across processes.
 *
 * @category services
 * @since 0.1.0
 */
export class Pubsub extends Context.Service<
  Pubsub,
  {
    /** Sends every payload, in order, in one round trip where the transport can. */
    readonly publish: (channel: string, payloads: ReadonlyArray<string>) => Effect.Effect<void, PubsubError>
    /**
     * Subscribes until the scope closes. When it returns, the subscription
     * stands: whatever is published from then on arrives.
     */
    readonly subscribe: (channel: string) => Effect.Effect<Queue.Dequeue<Signal>, PubsubError, Scope.Scope>
  }
>()("effect-metadata-batcher/Pubsub") {}
