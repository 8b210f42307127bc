import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import { bounded } from "./bounded.ts"
import type { Definition, Discarded } from "./definition.ts"
import * as throttledLog from "./throttledLog.ts"

/** How many records `onDiscarded` is given at once. */
const maxAtOnce = 500

/** What hands records that are given up to whoever asked for them. */
export interface Discards<A> {
  readonly isWanted: boolean
  readonly add: (discarded: Discarded<A>) => void
  /** Hands on what comes, for as long as it runs. */
  readonly run: Effect.Effect<never>
  /** Hands on what waits; ends after `timeout` milliseconds whatever becomes of it. */
  readonly drain: (timeout: number) => Effect.Effect<void>
}

export const make = <A>(
  onDiscarded: Definition<A>["onDiscarded"],
  maxWaiting: number,
  timeout: number,
  clock: Clock.Clock
): Discards<A> => {
  const some = Latch.makeUnsafe(false)
  const log = throttledLog.make(clock)
  const waiting: Array<Discarded<A>> = []
  let leftOut = 0

  const handOn = (limit: number) =>
    Effect.suspend(() => {
      const records = waiting.splice(0, maxAtOnce)
      const missed = leftOut
      leftOut = 0
      const warning =
        missed === 0
          ? Effect.void
          : log(missed, (count) => `onDiscarded is too slow: it was not given ${count} records`, {})
      if (records.length === 0 || onDiscarded === undefined) return warning
      return warning.pipe(
        Effect.andThen(
          bounded(
            Effect.suspend(() => onDiscarded(records)),
            Effect.sleep(limit),
            () => Exit.void
          )
        ),
        Effect.catchCause((cause) => throttledLog.ignoreDefect(Effect.logError("onDiscarded died", cause)))
      )
    })

  return {
    isWanted: onDiscarded !== undefined,
    add: (discarded) => {
      waiting.push(discarded)
      if (waiting.length >= maxWaiting + maxAtOnce) leftOut += waiting.splice(0, maxAtOnce).length
      Latch.openUnsafe(some)
    },
    run: some.await.pipe(
      // An opened latch runs who waits for it at once, which may be on the stack of whoever adds.
      Effect.andThen(Effect.yieldNow),
      Effect.andThen(handOn(timeout)),
      Effect.andThen(
        Effect.sync(() => {
          if (waiting.length === 0) Latch.closeUnsafe(some)
        })
      ),
      Effect.forever
    ),
    drain: (limit) =>
      Effect.asVoid(
        Effect.timeoutOption(Effect.repeat(handOn(limit), { while: () => waiting.length > 0 }), limit)
      )
  }
}
