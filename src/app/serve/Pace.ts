/**
 * When an agent's events go to one watcher: never oftener than it wants them,
 * and not at the same moment as everybody else's.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/**
 * Milliseconds for each watcher of the server over which events are spread that
 * are due at once, so that requests find room in between: 5,000 watchers fill a
 * second, and ten notice nothing.
 */
const perWatcherMs = 0.2

/** Milliseconds by which a timer may be late. */
const inaccuracyMs = 10

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Milliseconds between two events, at least. */
  readonly intervalMs: number
  /** The watcher's place among all, from 0 to 1. */
  readonly phase: number
  /** How many watchers the server has. */
  readonly watchers: () => number
}

/**
 * Gives a function that sends what came, and returns when the next may.
 *
 * A change wakes all who have been waiting for one, so each of those is held
 * back by its place. Once they are apart they stay so: who finds the next
 * change there already when its interval is over sends it at once.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({
  intervalMs,
  phase,
  watchers
}: Options): Effect.Effect<(send: Effect.Effect<void>) => Effect.Effect<void>> =>
  Effect.map(Clock.Clock, (clock) => {
    let waitsSince = Number.POSITIVE_INFINITY

    const holdBack = Effect.suspend(() => {
      const hasWaited = clock.currentTimeMillisUnsafe() - waitsSince > inaccuracyMs
      return hasWaited
        ? Effect.sleep(Math.round(phase * Math.min(intervalMs, watchers() * perWatcherMs)))
        : Effect.void
    })
    const rest = Effect.map(Effect.sleep(intervalMs), () => {
      waitsSince = clock.currentTimeMillisUnsafe()
    })
    return (send) => Effect.andThen(holdBack, Effect.andThen(send, rest))
  })
