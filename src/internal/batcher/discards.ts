import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { bounded } from "../bounded.ts"
import * as throttledLog from "../throttledLog.ts"
import type { Definition } from "./definition.ts"
import type { Discarded } from "./models.ts"
import * as Signal from "./signal.ts"

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

export const make = Effect.fnUntraced(function* <A>(
  onDiscarded: Definition<A>["onDiscarded"],
  maxWaiting: number,
  timeout: number,
  clock: Clock.Clock
): Effect.fn.Return<Discards<A>> {
  const some = yield* Signal.make
  const log = throttledLog.make(clock)
  const waiting: Array<Discarded<A>> = []
  let leftOut = 0
  let underWay: Fiber.Fiber<void> | undefined

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

  /** Hands on in a fiber of its own, which the close awaits: `run` is interrupted before the last writes. */
  const handOnApart = Effect.suspend(() =>
    Effect.flatMap(Effect.forkDetach(handOn(timeout), { startImmediately: true }), (fiber) => {
      underWay = fiber
      return Fiber.join(fiber)
    })
  )
  const rest = (limit: number) =>
    Effect.andThen(
      underWay === undefined ? Effect.void : Fiber.await(underWay),
      Effect.repeat(handOn(limit), { while: () => waiting.length > 0 })
    )

  return {
    isWanted: onDiscarded !== undefined,
    add: (discarded) => {
      waiting.push(discarded)
      if (waiting.length >= maxWaiting + maxAtOnce) leftOut += waiting.splice(0, maxAtOnce).length
      some.raiseUnsafe()
    },
    run: some.wait.pipe(
      Effect.andThen(Effect.repeat(handOnApart, { while: () => waiting.length > 0 })),
      Effect.forever
    ),
    drain: (limit) =>
      Effect.suspend(() => Effect.timeoutOption(rest(limit), limit)).pipe(
        Effect.ensuring(Effect.sync(() => underWay?.interruptUnsafe())),
        Effect.asVoid
      )
  }
})
