import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { monotonicMillis } from "./monotonicMillis.ts"

/** How far apart two warnings of one kind stay. */
export const warningIntervalMillis = 10_000

/** Loggers are the application's, and one may throw: that must not end what it was to tell of. */
export const ignoreDefect: (log: Effect.Effect<void>) => Effect.Effect<void> = Effect.catchDefect(
  () => Effect.void
)

/**
 * A log line that a busy failure cannot turn into a flood: a warning at most
 * every 10 seconds, with the count since the last one; between two, a debug
 * line with what the call itself counted.
 */
export const make = (clock: Clock.Clock) => {
  let lastWarning = Number.NEGATIVE_INFINITY
  let sinceWarning = 0
  return (
    count: number,
    message: (count: number) => string,
    annotations: Readonly<Record<string, unknown>>
  ): Effect.Effect<void> =>
    Effect.suspend(() => {
      const now = monotonicMillis(clock)
      sinceWarning += count
      if (now - lastWarning < warningIntervalMillis) {
        return Effect.annotateLogs(Effect.logDebug(message(count)), { ...annotations, count })
      }
      const total = sinceWarning
      lastWarning = now
      sinceWarning = 0
      return Effect.annotateLogs(Effect.logWarning(message(total)), { ...annotations, count: total })
    }).pipe(ignoreDefect)
}
