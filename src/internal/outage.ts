import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { StoreError } from "../Store.ts"
import type { Ledger } from "./ledger.ts"

/** How often an outage that goes on is mentioned again. */
const reminderMillis = 60_000

/**
 * Whether the store takes writes. An outage begins with the first failed write
 * and ends with the first that succeeds; it is logged at its begin, every
 * minute, and at its end, whatever the number of attempts.
 */
export interface Outage {
  readonly isDown: () => boolean
  /** Failed writes in a row. */
  readonly attempts: () => number
  readonly failed: (error: StoreError) => Effect.Effect<void>
  readonly succeeded: Effect.Effect<void>
}

export const make = (clock: Clock.Clock, ledger: Ledger): Outage => {
  let outage:
    | { readonly since: number; readonly dropped: number; attempts: number; mentioned: number }
    | undefined

  const figures = (current: NonNullable<typeof outage>, now: number) => ({
    seconds: Math.round((now - current.since) / 1000),
    attempts: current.attempts,
    pending: ledger.pending,
    dropped: ledger.dropped - current.dropped
  })

  return {
    isDown: () => outage !== undefined,
    attempts: () => outage?.attempts ?? 0,
    failed: (error) =>
      Effect.suspend(() => {
        const now = clock.currentTimeMillisUnsafe()
        const begins = outage === undefined
        outage ??= { since: now, dropped: ledger.dropped, attempts: 0, mentioned: now }
        outage.attempts += 1
        // Somebody canceled the statement: nothing is wrong with the store.
        if (error.reason._tag === "Canceled") return Effect.logDebug("write canceled, will be retried", error)
        if (begins) return Effect.logWarning("store unavailable, keeping what comes until it is back", error)
        if (now - outage.mentioned < reminderMillis) return Effect.logDebug("store still unavailable", error)
        outage.mentioned = now
        return Effect.annotateLogs(Effect.logWarning("store still unavailable", error), figures(outage, now))
      }),
    succeeded: Effect.suspend(() => {
      if (outage === undefined) return Effect.void
      const ended = figures(outage, clock.currentTimeMillisUnsafe())
      outage = undefined
      return Effect.annotateLogs(Effect.logWarning("store available again"), ended)
    })
  }
}
