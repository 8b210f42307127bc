import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type { AgentId } from "../../AgentId.ts"
import * as AgentIdChunks from "../../AgentIdChunks.ts"
import type { Pubsub, Signal } from "../../Pubsub.ts"
import { textOf } from "../textOf.ts"
import type { Trouble } from "./trouble.ts"

/** The pauses between two attempts to subscribe, in milliseconds: from the first, doubled, up to the longest. */
const [firstPause, longestPause] = [100, 5_000]

/** The one subscription of a watcher, which is kept up. */
export interface Subscription {
  /** Whether it stands. */
  readonly stands: () => boolean
  /** Runs until it is interrupted. */
  readonly run: Effect.Effect<never>
}

export const make = (parts: {
  readonly pubsub: Pubsub["Service"]
  readonly channel: string
  readonly trouble: Trouble
  /** Whether anybody wants to know. */
  readonly isWanted: () => boolean
  readonly onAnnounced: (agentIds: ReadonlyArray<AgentId>) => void
  /** Something may have been missed, as whatever came before the subscription stood. */
  readonly onResync: () => void
  readonly warnOfPayload: Effect.Effect<void>
}): Subscription => {
  const { channel, isWanted, onAnnounced, onResync, pubsub, trouble, warnOfPayload } = parts
  let stands = false

  const hear = (signal: Signal): Effect.Effect<void> => {
    if (!isWanted()) return Effect.void
    if (signal._tag === "Resync") return Effect.sync(onResync)
    const decoded = AgentIdChunks.decode(signal.payload)
    if (Result.isSuccess(decoded)) return Effect.sync(() => onAnnounced(decoded.success))
    // It may have named any agent.
    return Effect.andThen(Effect.sync(onResync), warnOfPayload)
  }

  const listen = Effect.gen(function* () {
    const signals = yield* pubsub.subscribe(channel)
    stands = true
    yield* trouble.succeeded
    onResync()
    return yield* Queue.takeAll(signals).pipe(
      Effect.flatMap((taken) => Effect.forEach(taken, hear, { discard: true })),
      Effect.forever
    )
  }).pipe(
    Effect.scoped,
    Effect.ensuring(
      Effect.sync(() => {
        stands = false
      })
    )
  )

  const pause = Effect.flatMap(Random.next, (random) => {
    const doubled = firstPause * 2 ** Math.min(trouble.attempts() - 1, 16)
    return Effect.sleep(Math.ceil(Math.min(doubled, longestPause) * (0.8 + 0.4 * random)))
  })

  return {
    stands: () => stands,
    run: listen.pipe(
      // A pubsub that was closed shuts the queue down, which looks like an interruption.
      Effect.catchCause((cause) => {
        const why = Cause.hasInterruptsOnly(cause) ? "the subscription ended" : Cause.squash(cause)
        return Effect.andThen(trouble.failed(why instanceof Error ? why.message : textOf(why)), pause)
      }),
      Effect.forever
    )
  }
}
