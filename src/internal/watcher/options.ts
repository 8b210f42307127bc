import * as Effect from "effect/Effect"
import { metadataBatchChannel } from "../../MetadataBatcher.ts"
import { count, InvalidOptionError, metricName, millis } from "../options.ts"
import { whyInvalid } from "../pubsub/limits.ts"
import type { Options } from "./definition.ts"

/** `Options` with every default filled in and durations in milliseconds. */
export interface Resolved {
  readonly minInterval: number
  readonly refreshInterval: number
  readonly readConcurrency: number
  readonly channel: string
  readonly metricsPrefix: string
}

export const resolve = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Resolved, InvalidOptionError> {
  const minInterval = yield* millis("minInterval", options.minInterval ?? "250 millis", 1)
  return {
    minInterval,
    refreshInterval: yield* millis(
      "refreshInterval",
      options.refreshInterval ?? Math.max(30_000, minInterval),
      minInterval
    ),
    readConcurrency: yield* count("readConcurrency", options.readConcurrency ?? 1, 1),
    channel: yield* channel(options.channel ?? metadataBatchChannel),
    metricsPrefix: yield* metricName("metricsPrefix", options.metricsPrefix ?? "agentapi")
  }
})

const channel = (value: string): Effect.Effect<string, InvalidOptionError> => {
  const why = whyInvalid(value)
  return why === undefined
    ? Effect.succeed(value)
    : Effect.fail(
        new InvalidOptionError({
          option: "channel",
          expected: `a name of at most 63 bytes (${why})`,
          actual: value
        })
      )
}
