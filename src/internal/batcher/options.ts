import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { InvalidOptionError } from "../options.ts"
import { count, invalid, metricName, millis, nonEmpty, oneOf } from "../options.ts"
import type { Accumulate } from "./accumulator.ts"
import type { Definition } from "./definition.ts"

/** `Options` with every default filled in and durations in milliseconds. */
export interface Resolved {
  readonly maxBatchSize: number
  readonly flushAt: number
  readonly interval: number
  readonly capacity: number
  readonly maxPending: number
  readonly maxPendingBytes: number
  readonly maxBatchBytes: number
  readonly shutdownTimeout: number
  /** 0: no limit. */
  readonly writeTimeout: number
  readonly writeConcurrency: number
  readonly onWriteFailure: "requeue" | "discard"
  /** 0: off. */
  readonly unchanged: number
  readonly maxAhead: number
  readonly name: string
  readonly metricsPrefix: string
}

/** The options of a definition, checked. */
export const resolve = Effect.fnUntraced(function* <A>(
  definition: Definition<A>
): Effect.fn.Return<Resolved, InvalidOptionError> {
  yield* checkDefinition(definition)
  const { accumulate, defaults = {}, options = {} } = definition
  const maxBatchSize = yield* count("maxBatchSize", options.maxBatchSize ?? defaults.maxBatchSize ?? 500, 1)
  return {
    maxBatchSize,
    flushAt: Math.ceil(maxBatchSize * (yield* share(defaults.flushAtShare ?? 1))),
    interval: yield* millis("interval", options.interval ?? defaults.interval ?? "5 seconds", 1),
    capacity: yield* count("capacity", options.capacity ?? 5 * maxBatchSize, maxBatchSize),
    maxPending: yield* count(
      "maxPending",
      options.maxPending ?? Math.max(50_000, maxBatchSize),
      maxBatchSize
    ),
    maxPendingBytes: yield* count("maxPendingBytes", options.maxPendingBytes ?? 64 * mebibyte, 1),
    maxBatchBytes: yield* count("maxBatchBytes", options.maxBatchBytes ?? 4 * mebibyte, 1),
    shutdownTimeout: yield* millis("shutdownTimeout", options.shutdownTimeout ?? "15 seconds", 0),
    writeTimeout: yield* millis("writeTimeout", options.writeTimeout ?? "30 seconds", 0),
    writeConcurrency: yield* count("writeConcurrency", options.writeConcurrency ?? 1, 1),
    onWriteFailure: yield* oneOf("onWriteFailure", options.onWriteFailure ?? "requeue", [
      "requeue",
      "discard"
    ]),
    unchanged: yield* unchangedFor(accumulate, options.unchanged),
    maxAhead: yield* maxAhead(options.maxAhead ?? "1 minute"),
    name: yield* nonEmpty("name", options.name ?? definition.name),
    metricsPrefix: yield* metricName("metricsPrefix", options.metricsPrefix ?? "agentapi")
  }
})

const mebibyte = 1_048_576

/** What a definition in JavaScript may lack; without it a batcher would fail at its first record, or never write. */
const checkDefinition = Effect.fnUntraced(function* <A>(definition: Definition<A>) {
  yield* nonEmpty("name", definition.name)
  yield* metricName("kind", definition.kind ?? "records")
  for (const name of ["write", "onDiscarded"] as const) {
    const value: unknown = definition[name]
    const isOptional = name === "onDiscarded" && value === undefined
    if (typeof value !== "function" && !isOptional) yield* invalid(name, "a function", value)
  }
  const { accumulate } = definition
  if (typeof accumulate?.make !== "function") {
    yield* invalid("accumulate", "what newestWins or appendOnly gives", accumulate)
  }
  for (const name of ["group", "key", "bytes"] as const) {
    if (typeof accumulate[name] !== "function") yield* invalid(name, "a function", accumulate[name])
  }
})

const share = (value: number) =>
  value > 0 && value <= 1 ? Effect.succeed(value) : invalid("flushAtShare", "above 0 and at most 1", value)

const unchangedFor = <A>(accumulate: Accumulate<A>, input: Duration.Input | undefined) =>
  Effect.suspend(() => {
    if (input === undefined) return Effect.succeed(0)
    return accumulate.content === undefined
      ? invalid(
          "unchanged",
          "left out, since the definition does not say what the content of a record is",
          input
        )
      : millis("unchanged", input, 1)
  })

const maxAhead = (input: Duration.Input) =>
  Effect.suspend(() => {
    const duration = Duration.fromInput(input)
    const isInfinite = duration._tag === "Some" && !Duration.isFinite(duration.value)
    return isInfinite && !Number.isNaN(input)
      ? Effect.succeed(Number.POSITIVE_INFINITY)
      : millis("maxAhead", input, 0)
  })
