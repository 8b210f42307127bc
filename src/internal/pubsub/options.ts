import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { invalid, type PubsubError } from "./error.ts"

export interface Options {
  readonly heartbeat?: Duration.Input | undefined
  readonly maxReconnectDelay?: Duration.Input | undefined
  readonly metricsPrefix?: string | undefined
}

/** `Options` with every default filled in and durations in milliseconds. */
export interface Resolved {
  readonly heartbeatMillis: number
  readonly maxReconnectMillis: number
  readonly metricsPrefix: string
}

export const resolve = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Resolved, PubsubError> {
  return {
    heartbeatMillis: yield* millis("heartbeat", options.heartbeat ?? "15 seconds"),
    maxReconnectMillis: yield* millis("maxReconnectDelay", options.maxReconnectDelay ?? "10 seconds"),
    metricsPrefix: yield* prefix(options.metricsPrefix ?? "agentapi")
  }
})

const refuse = (option: string, expected: string, actual: unknown) =>
  Effect.fail(invalid(new Error(`${option} must be ${expected}, not ${String(actual)}`)))

const millis = (option: string, input: Duration.Input) =>
  Effect.suspend(() => {
    const value = Duration.fromInput(input)
    // Duration takes NaN for zero.
    const duration =
      value._tag === "Some" && !Number.isNaN(input) ? Duration.toMillis(value.value) : Number.NaN
    // setTimeout fires at once for anything longer.
    return duration >= 1 && duration <= 2 ** 31 - 1
      ? Effect.succeed(duration)
      : refuse(option, "a duration of at least 1 ms and at most 24 days", input)
  })

const prefix = (value: string) =>
  /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(value)
    ? Effect.succeed(value)
    : refuse("metricsPrefix", "letters, digits and underscores, not starting with a digit", value)
