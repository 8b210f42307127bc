import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { StoreError } from "../Store.ts"
import type { Ledger } from "./ledger.ts"
import { monotonicMillis } from "./monotonicMillis.ts"
import { ignoreDefect, warningIntervalMillis } from "./throttledLog.ts"

/** How often an outage that goes on is mentioned again. */
const reminderMillis = 60_000

/**
 * Whether the store takes writes. An outage begins with the first failed write
 * and ends with the first that succeeds; it is logged at its begin, every
 * minute, and at its end, whatever the number of attempts. Of outages that
 * follow each other within 10 seconds one is logged, the others as debug lines.
 */
export interface Outage {
  readonly isDown: () => boolean
  /** Waits for an outage to begin, or for nothing if there is one. */
  readonly awaitDown: Effect.Effect<unknown>
  /** Failed writes in a row. */
  readonly attempts: () => number
  readonly failed: (error: StoreError) => Effect.Effect<void>
  readonly succeeded: Effect.Effect<void>
}

export const make = (clock: Clock.Clock, ledger: Ledger): Outage => {
  const down = Latch.makeUnsafe(false)
  let since = 0
  let attempts = 0
  let droppedBefore = 0
  let lastWarning = Number.NEGATIVE_INFINITY
  /** Whether this outage has been warned about. */
  let mentioned = false

  const figures = () => ({
    seconds: Math.round((monotonicMillis(clock) - since) / 1000),
    attempts,
    pending: ledger.pending,
    dropped: ledger.dropped - droppedBefore
  })

  return {
    isDown: () => Latch.isOpen(down),
    awaitDown: down.await,
    attempts: () => attempts,
    failed: (error) =>
      Effect.suspend(() => {
        const now = monotonicMillis(clock)
        if (Latch.openUnsafe(down)) {
          since = now
          droppedBefore = ledger.dropped
        }
        attempts += 1
        // Only what it says: its cause may quote the values of a row.
        const annotations = { ...figures(), error: error.message }
        // Somebody canceled the statement: nothing is wrong with the store.
        if (error.reason._tag === "Canceled") {
          return Effect.annotateLogs(Effect.logDebug("write canceled, will be retried"), annotations)
        }
        const message = mentioned
          ? "store still unavailable"
          : "store unavailable, keeping what comes until it is back"
        if (now - lastWarning < (mentioned ? reminderMillis : warningIntervalMillis)) {
          return Effect.annotateLogs(Effect.logDebug(message), annotations)
        }
        lastWarning = now
        mentioned = true
        return Effect.annotateLogs(Effect.logWarning(message), annotations)
      }).pipe(ignoreDefect),
    succeeded: Effect.suspend(() => {
      if (!Latch.closeUnsafe(down)) return Effect.void
      const log = mentioned ? Effect.logWarning : Effect.logDebug
      const said = Effect.annotateLogs(log("store available again"), figures())
      attempts = 0
      mentioned = false
      return said
    }).pipe(ignoreDefect)
  }
}
