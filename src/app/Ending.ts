/**
 * How a command ends that a signal has interrupted.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as CliError from "effect/cli/CliError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Screen } from "./Screen.ts"

/**
 * Runs what is left to say once the work is over. Of a fiber that was
 * interrupted only the interruption is left in the end, whatever fails after it;
 * so a failure is then printed here, and the exit code set for `main.ts`.
 *
 * @category running
 * @since 0.1.0
 */
export const after = <A, E, R>(
  worked: Exit.Exit<A, E>,
  verdict: Effect.Effect<void, CliError.UserError, R>
): Effect.Effect<void, CliError.UserError | E, R | Screen> => {
  // Being interrupted by a signal is how it is meant to end.
  if (Exit.isSuccess(worked) || !Cause.hasInterruptsOnly(worked.cause)) {
    return Effect.andThen(verdict, Effect.asVoid(worked))
  }
  return Effect.catch(
    verdict,
    Effect.fnUntraced(function* ({ userMessage }) {
      const screen = yield* Screen
      yield* screen.print(`\nERROR\n  ${userMessage}`)
      process.exitCode = 1
    })
  )
}
