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
