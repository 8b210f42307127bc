import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { metricName, millis } from "../options.ts"
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

const resolveAll = Effect.fnUntraced(function* (options: Options) {
  return {
    heartbeatMillis: yield* millis("heartbeat", options.heartbeat ?? "15 seconds", 1),
    maxReconnectMillis: yield* millis("maxReconnectDelay", options.maxReconnectDelay ?? "10 seconds", 1),
    metricsPrefix: yield* metricName("metricsPrefix", options.metricsPrefix ?? "agentapi")
  }
})

export const resolve = (options: Options): Effect.Effect<Resolved, PubsubError> =>
  Effect.mapError(resolveAll(options), ({ actual, expected, option }) =>
    invalid(new Error(`${option} must be ${expected}, not ${actual}`))
  )
