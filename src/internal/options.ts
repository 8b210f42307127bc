import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Definition, Options } from "../Batcher.ts"
import { InvalidOptionError } from "../Batcher.ts"

/** `Options` with every default filled in and durations in milliseconds. */
export interface Resolved {
  readonly maxBatchSize: number
  readonly flushAt: number
  readonly interval: number
  readonly capacity: number
  readonly maxPending: number
  readonly shutdownTimeout: number
  readonly writeTimeout: number
  readonly writeConcurrency: number
  readonly onWriteFailure: "requeue" | "discard"
  readonly metricsPrefix: string
}

export const resolve = Effect.fnUntraced(function* (
  options: Options,
  defaults: Definition<never, never>["defaults"]
): Effect.fn.Return<Resolved, InvalidOptionError> {
  const maxBatchSize = yield* count("maxBatchSize", options.maxBatchSize ?? defaults.maxBatchSize, 1)
  return {
    maxBatchSize,
    flushAt: Math.ceil(maxBatchSize * defaults.flushAtShare),
    interval: yield* millis("interval", options.interval ?? defaults.interval, 1),
    capacity: yield* count("capacity", options.capacity ?? 5 * maxBatchSize, maxBatchSize),
    maxPending: yield* count(
      "maxPending",
      options.maxPending ?? Math.max(50_000, maxBatchSize),
      maxBatchSize
    ),
    shutdownTimeout: yield* millis("shutdownTimeout", options.shutdownTimeout ?? "15 seconds", 1),
    writeTimeout: yield* millis("writeTimeout", options.writeTimeout ?? "30 seconds", 0),
    writeConcurrency: yield* count("writeConcurrency", options.writeConcurrency ?? 1, 1),
    onWriteFailure: yield* oneOf("onWriteFailure", options.onWriteFailure ?? "requeue", [
      "requeue",
      "discard"
    ]),
    metricsPrefix: yield* prefix(options.metricsPrefix ?? "agentapi")
  }
})

export const invalid = (option: string, expected: string, actual: unknown) =>
  Effect.fail(
    new InvalidOptionError({ option, expected, actual: typeof actual === "string" ? actual : String(actual) })
  )

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

const oneOf = <A extends string>(option: string, value: A, allowed: ReadonlyArray<A>) =>
  allowed.includes(value) ? Effect.succeed(value) : invalid(option, `one of ${allowed.join(", ")}`, value)

export const prefix = (value: string) =>
  /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(value)
    ? Effect.succeed(value)
    : invalid("metricsPrefix", "letters, digits and underscores, not starting with a digit", value)
