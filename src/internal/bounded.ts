import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

/**
 * Runs an effect such that it always ends: with what it gives, or with `orElse`
 * once the deadline has come or something else has interrupted it, a closed pool
 * for one.
 *
 * It runs in a fiber of its own. A statement on a dead connection may not even
 * answer its interruption, so nobody waits for that.
 */
export const bounded = <A, E>(
  effect: Effect.Effect<A, E>,
  deadline: Effect.Effect<unknown>,
  orElse: (why: "deadline" | "interrupted") => Exit.Exit<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) => {
    const settle = (exit: Exit.Exit<A, E>): Exit.Exit<A, E> =>
      Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? orElse("interrupted") : exit
    const done = fiber.pollUnsafe()
    if (done !== undefined) return settle(done)
    return Fiber.await(fiber).pipe(
      Effect.map(settle),
      Effect.raceFirst(Effect.map(deadline, () => orElse("deadline"))),
      // Once the race is over: what answers its interruption at once would win it against the deadline.
      Effect.ensuring(Effect.sync(() => fiber.interruptUnsafe())),
      Effect.flatten
    )
  })
