/**
 * Failures as the user reads them: what happened and why, without stack traces.
 *
 * @since 0.1.0
 */
import * as CliError from "effect/cli/CliError"

const explain = (error: Error): string => {
  if (!(error.cause instanceof Error)) return error.message
  const cause = explain(error.cause)
  if (error.message === "") return cause
  return error.message.endsWith(cause) ? error.message : `${error.message}: ${cause}`
}

/**
 * @category errors
 * @since 0.1.0
 */
export const make = (userMessage: string): CliError.UserError =>
  new CliError.UserError({ cause: undefined, userMessage })

/**
 * The message of an error and of what caused it.
 *
 * @category errors
 * @since 0.1.0
 */
export const toUserError = (error: Error): CliError.UserError =>
  error instanceof CliError.UserError ? error : make(explain(error))
