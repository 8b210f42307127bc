import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { monotonicMillis } from "../monotonicMillis.ts"

/** However slow the server is, a statement takes this many rows. */
const leastSize = 10

/** How many times longer than usual the rests become while the server is slow. */
const longestRest = 16

/**
 * How fast deleting may go: so many rows to a statement, and a rest after each.
 * A statement that takes too long tells that writes do too: then the next ones
 * are smaller, and the rests longer, until it passes.
 */
export interface Pace {
  /** Rows that the next statement may take. */
  readonly size: () => number
  /** Runs a statement and rests. */
  readonly take: <A, E, R>(statement: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (options: {
  readonly clock: Clock.Clock
  readonly batchSize: number
  /** Of the time, between 0 and 1, that statements may take. */
  readonly share: number
  readonly slowMillis: number
  /** Is told of each statement. */
  readonly onStatement: (millis: number) => void
}): Pace => {
  const { batchSize, clock, onStatement, share, slowMillis } = options
  const least = Math.min(leastSize, batchSize)
  // Nothing is known yet of how quick the server is.
  let size = Math.max(least, Math.floor(batchSize / 8))
  let rest = 1

  const adapt = (millis: number) => {
    if (millis > slowMillis) {
      size = Math.max(least, Math.floor(size / 2))
      rest = Math.min(longestRest, rest * 2)
    } else if (millis < slowMillis / 2) {
      size = Math.min(batchSize, size * 2)
      rest = 1
    }
  }

  return {
    size: () => size,
    take: (statement) =>
      Effect.suspend(() => {
        const start = monotonicMillis(clock)
        return Effect.tap(statement, () => {
          const millis = monotonicMillis(clock) - start
          onStatement(millis)
          adapt(millis)
          const pause = Math.ceil(millis * (1 / share - 1) * rest)
          return pause > 0 ? Effect.sleep(pause) : Effect.void
        })
      })
  }
}
