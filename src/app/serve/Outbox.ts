/**
 * What waits for one watcher. It holds the newest event under each name only, so
 * that a watcher that reads slowly costs no more than one that does not.
 *
 * @since 0.1.0
 */
import { Buffer } from "node:buffer"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/**
 * Gives the bytes of an event at the time it is sent.
 *
 * @category models
 * @since 0.1.0
 */
export type Entry = () => ReadonlyArray<Uint8Array>

/**
 * @category models
 * @since 0.1.0
 */
export interface Outbox {
  /** Replaces what waits under this name. */
  readonly put: (name: string, entry: Entry) => void
  readonly has: (name: string) => boolean
  readonly remove: (name: string) => void
  /** Ends the stream after what waits. */
  readonly end: () => void
  /** For one reader. */
  readonly stream: Stream.Stream<Uint8Array>
}

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = (): Outbox => {
  const entries = new Map<string, Entry>()
  let ended = false
  let resume: ((effect: Effect.Effect<void>) => void) | undefined

  const wake = () => {
    const waiting = resume
    resume = undefined
    waiting?.(Effect.void)
  }

  const wait = Effect.callback<void>((waiting) => {
    resume = waiting
  })

  const pull: Effect.Effect<readonly [Uint8Array, ...Array<Uint8Array>], Cause.Done> = Effect.suspend(() => {
    if (entries.size > 0) {
      const parts: Array<Uint8Array> = []
      for (const entry of entries.values()) parts.push(...entry())
      entries.clear()
      const [first, ...rest] = parts
      if (first !== undefined) return Effect.succeed([first, ...rest] as const)
    }
    return ended ? Cause.done() : Effect.andThen(wait, pull)
  })

  return {
    put: (name, entry) => {
      if (ended) return
      entries.set(name, entry)
      wake()
    },
    has: (name) => entries.has(name),
    remove: (name) => void entries.delete(name),
    end: () => {
      ended = true
      wake()
    },
    stream: Stream.fromPull(Effect.succeed(pull))
  }
}

/**
 * The bytes of a Server-Sent Event.
 *
 * @category conversions
 * @since 0.1.0
 */
export const event = (name: string, data: unknown, id?: string | undefined): Uint8Array =>
  Buffer.from(`${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
