import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { textOf } from "./textOf.ts"

/**
 * An option that nothing can run with.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOptionError extends Schema.Error<InvalidOptionError>(
  "effect-metadata-batcher/Batcher/InvalidOptionError"
)({
  _tag: Schema.tag("InvalidOptionError"),
  option: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    return `option "${this.option}" must be ${this.expected}, got ${this.actual}`
  }
}

export const nonEmpty = (option: string, value: string) =>
  typeof value === "string" && value.length > 0
    ? Effect.succeed(value)
    : invalid(option, "a text that is not empty", value)

export const invalid = (option: string, expected: string, actual: unknown) =>
  Effect.fail(new InvalidOptionError({ option, expected, actual: textOf(actual) }))

export const count = (option: string, value: number, least: number) =>
  Number.isSafeInteger(value) && value >= least
    ? Effect.succeed(value)
    : invalid(option, `a whole number of at least ${least}`, value)

export const millis = (option: string, input: Duration.Input, least: number) =>
  Effect.suspend(() => {
    const value = Duration.fromInput(input)
    // Duration takes NaN for zero.
    const duration =
      value._tag === "Some" && !Number.isNaN(input) ? Duration.toMillis(value.value) : Number.NaN
    // setTimeout fires at once for anything longer.
    return duration >= least && duration <= 2 ** 31 - 1
      ? Effect.succeed(duration)
      : invalid(option, `a duration of at least ${least} ms and at most 24 days`, input)
  })

export const oneOf = <A extends string>(option: string, value: A, allowed: ReadonlyArray<A>) =>
  allowed.includes(value) ? Effect.succeed(value) : invalid(option, `one of ${allowed.join(", ")}`, value)

export const metricName = (option: string, value: string) =>
  /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(value)
    ? Effect.succeed(value)
    : invalid(option, "letters, digits and underscores, not starting with a digit", value)
