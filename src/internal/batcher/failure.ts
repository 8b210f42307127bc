import * as Predicate from "effect/Predicate"

/** Why a statement failed. */
export interface Failure {
  /**
   * - `unavailable`: the store takes no writes; no row is at fault.
   * - `tooMuch`: the statement was cancelled or got no answer; a smaller one may pass.
   * - `rejected`: a row may be at fault.
   */
  readonly kind: "unavailable" | "tooMuch" | "rejected"
  readonly error: Error
}

/** How failures are called in metrics and spans. */
export const failureLabels = {
  unavailable: "Unavailable",
  tooMuch: "Canceled",
  rejected: "Rejected"
} as const

/** What a failed write means, by the tag of its `reason`. What has none may be a row's fault. */
export const failureOf = (error: unknown): Failure => {
  const reason = Predicate.hasProperty(error, "reason") ? error.reason : undefined
  const tag = Predicate.hasProperty(reason, "_tag") ? reason._tag : undefined
  return {
    kind: tag === "Unavailable" ? "unavailable" : tag === "Canceled" ? "tooMuch" : "rejected",
    error: toError(error)
  }
}

export const toError = (error: unknown): Error =>
  error instanceof Error ? error : new Error(typeof error === "string" ? error : "no reason given")

/** How much of a name goes into a log line. */
const maxNameLength = 127

/** A name for a log line: what cannot be printed is escaped, what is long is cut. */
export const printable = (name: unknown): string => {
  try {
    const text = JSON.stringify(String(name)).slice(1, -1)
    return text.length <= maxNameLength ? text : `${text.slice(0, maxNameLength)}…`
  } catch {
    return "not a string"
  }
}

/** What a user's function says of a record; a getter of the record may throw. */
export const attempt = <A>(ask: () => A, orElse: A): A => {
  try {
    return ask()
  } catch {
    return orElse
  }
}
