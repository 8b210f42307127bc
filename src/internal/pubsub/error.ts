import * as Schema from "effect/Schema"
import { innermostMessage } from "../innermostMessage.ts"

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
    return `the pubsub is unavailable: ${innermostMessage(this.cause)}`
  }
}

/**
 * The channel's name or a payload is one the transport does not carry, or an
 * option has a value that makes no sense. A channel's name has at most 63 bytes
 * and a payload at most 7,999, as in PostgreSQL, whatever the transport.
 *
 * @category errors
 * @since 0.1.0
 */
export class Invalid extends Schema.Error<Invalid>("effect-metadata-batcher/Pubsub/Invalid")({
  _tag: Schema.tag("Invalid"),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the pubsub refuses this: ${innermostMessage(this.cause)}`
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
 * The failure of every `Pubsub` operation, with its `reason`. The reason's cause
 * says what the server or the connection reported, and never quotes a payload.
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
 * A `PubsubError` whose reason is `Unavailable`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unavailable = (cause: unknown): PubsubError =>
  new PubsubError({ reason: new Unavailable({ cause }) })

/**
 * A `PubsubError` whose reason is `Invalid`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const invalid = (cause: unknown): PubsubError => new PubsubError({ reason: new Invalid({ cause }) })
