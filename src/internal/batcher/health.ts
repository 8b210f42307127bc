import type * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { monotonicMillis } from "../monotonicMillis.ts"
import { ignoreDefect, warningIntervalMillis } from "../throttledLog.ts"
import type { Account } from "./account.ts"
import type { Status } from "./models.ts"

/** How often an outage that goes on is mentioned again. */
const reminderMillis = 60_000

/**
 * Whether the store takes writes. An outage begins with the first failed write
 * and ends with the first that succeeds, or when nothing is left to be written:
 * whoever gets no traffic because of it must not wait for ever. It is logged at
 * its begin, every minute, and at its end, whatever the number of attempts. Of
 * outages that follow each other within 10 seconds one is logged, the others as
 * debug lines.
 */
export interface Health {
  readonly isDown: () => boolean
  /** Waits for an outage to begin, or for nothing if there is one. */
  readonly awaitDown: Effect.Effect<unknown>
  /** Failed writes in a row. */
  readonly attempts: () => number
  readonly status: () => Status
  /** The account of the outage is kept at once; what is given back logs it. */
  readonly failed: (error: Error) => Effect.Effect<void>
  readonly succeeded: () => Effect.Effect<void>
  /** Nothing is left to be written, and so nothing that could show whether the store is back. */
  readonly nothingLeft: () => Effect.Effect<void>
}

export const make = (clock: Clock.Clock, account: Account): Health => {
  const down = Latch.makeUnsafe(false)
  let since = 0
  let sinceTime = 0
  let attempts = 0
  let error = ""
  let droppedBefore = 0
  let lastWarning = Number.NEGATIVE_INFINITY
  /** Whether this outage has been warned about. */
  let mentioned = false

  const figures = () => ({
    seconds: Math.round((monotonicMillis(clock) - since) / 1000),
    attempts,
    pending: account.pending,
    dropped: account.dropped - droppedBefore
  })

  const warn = (message: string) => {
    const now = monotonicMillis(clock)
    const annotations = { ...figures(), error }
    if (now - lastWarning < (mentioned ? reminderMillis : warningIntervalMillis)) {
      return Effect.annotateLogs(Effect.logDebug(message), annotations)
    }
    lastWarning = now
    mentioned = true
    return Effect.annotateLogs(Effect.logWarning(message), annotations)
  }

  const end = (message: string): Effect.Effect<void> => {
    if (!Latch.closeUnsafe(down)) return Effect.void
    const log = mentioned ? Effect.logWarning : Effect.logDebug
    const said = Effect.annotateLogs(log(message), figures())
    attempts = 0
    mentioned = false
    return ignoreDefect(said)
  }

  return {
    isDown: () => Latch.isOpen(down),
    awaitDown: down.await,
    attempts: () => attempts,
    status: () =>
      Latch.isOpen(down)
        ? { _tag: "Unavailable", since: DateTime.makeUnsafe(sinceTime), error }
        : { _tag: "Available" },
    failed: (failure) => {
      if (Latch.openUnsafe(down)) {
        since = monotonicMillis(clock)
        sinceTime = clock.currentTimeMillisUnsafe()
        droppedBefore = account.dropped
      }
      attempts += 1
      // Only what it says: its cause may quote the values of a row.
      error = failure.message
      return ignoreDefect(
        Effect.suspend(() =>
          warn(
            mentioned ? "store still unavailable" : "store unavailable, keeping what comes until it is back"
          )
        )
      )
    },
    succeeded: () => end("store available again"),
    nothingLeft: () => end("nothing waits for the store any more: the next write shows whether it is back")
  }
}
