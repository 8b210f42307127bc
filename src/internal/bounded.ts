import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

/**
 * Runs an effect such that it always ends, with a result, a failure or a
 * defect: after `timeout` milliseconds (0: never) the result is `orElse`,
 * whether or not the effect can be interrupted.
 *
 * It runs in a fiber of its own. A statement on a dead connection may not even
 * answer its interruption, so nobody waits for that.
 */
export const bounded = <A, E>(
  effect: Effect.Effect<A, E>,
  timeout: number,
  orElse: () => Exit.Exit<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) => {
    const done = fiber.pollUnsafe()
    if (done !== undefined) return ownInterruptAsDefect(done)
    const abandon = Effect.sync(() => fiber.interruptUnsafe())
    const ended: Effect.Effect<Exit.Exit<A, E>> =
      timeout === 0
        ? Fiber.await(fiber)
        : Effect.timeoutOrElse(Fiber.await(fiber), {
            duration: timeout,
            orElse: () => Effect.as(abandon, orElse())
          })
    return Effect.flatMap(
      Effect.onInterrupt(ended, () => abandon),
      ownInterruptAsDefect
    )
  })

/** A closed pool interrupts those who wait for it; whoever called must not take that for an interruption of their own. */
const ownInterruptAsDefect = <A, E>(exit: Exit.Exit<A, E>): Exit.Exit<A, E> =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    ? Exit.die(new Error("interrupted from within"))
    : exit
