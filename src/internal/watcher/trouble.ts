import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { monotonicMillis } from "../monotonicMillis.ts"
import { ignoreDefect, warningIntervalMillis } from "../throttledLog.ts"

/** How often something that goes on being wrong is mentioned again. */
const reminderMillis = 60_000

/**
 * Something that can be out of order for a while, as the log has it: a warning
 * when that begins, one a minute, and one when it is over, whatever the number
 * of attempts. Of troubles that follow each other within 10 seconds one is
 * mentioned.
 */
export interface Trouble {
  /** Attempts in a row that failed. */
  readonly attempts: () => number
  readonly failed: (why: string) => Effect.Effect<void>
  readonly succeeded: Effect.Effect<void>
}

export const make = (
  clock: Clock.Clock,
  says: { readonly begins: string; readonly goesOn: string; readonly ends: string }
): Trouble => {
  let attempts = 0
  let since = 0
  let mentionedAt = Number.NEGATIVE_INFINITY
  /** Whether this trouble has been warned about. */
  let isMentioned = false

  const figures = (now: number) => ({ seconds: Math.round((now - since) / 1000), attempts })

  return {
    attempts: () => attempts,
    failed: (why) =>
      Effect.suspend(() => {
        const now = monotonicMillis(clock)
        if (attempts === 0) since = now
        attempts += 1
        const isNews = now - mentionedAt >= (isMentioned ? reminderMillis : warningIntervalMillis)
        const log = isNews ? Effect.logWarning : Effect.logDebug
        const said = log(isMentioned ? says.goesOn : says.begins)
        if (isNews) {
          mentionedAt = now
          isMentioned = true
        }
        return Effect.annotateLogs(said, { ...figures(now), error: why })
      }).pipe(ignoreDefect),
    succeeded: Effect.suspend(() => {
      if (attempts === 0) return Effect.void
      const log = isMentioned ? Effect.logWarning : Effect.logDebug
      const said = Effect.annotateLogs(log(says.ends), figures(monotonicMillis(clock)))
      attempts = 0
      isMentioned = false
      return said
    }).pipe(ignoreDefect)
  }
}
