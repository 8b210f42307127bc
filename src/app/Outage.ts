/**
 * Takes the demo's own database away for a while, as a crash would.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { megabytes } from "./DashboardLayout.ts"
import type { EmbeddedPostgres, EmbeddedPostgresError } from "./EmbeddedPostgres.ts"
import { Screen } from "./Screen.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly after: Duration.Duration
  readonly lasting: Duration.Duration
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Outage {
  /** Crashes the server in time and starts it again: at once, when interrupted meanwhile. */
  readonly run: Effect.Effect<never, EmbeddedPostgresError, Screen>
  /** What the process's memory was before, during and is since; undefined before it has begun. */
  readonly memory: () => string | undefined
}

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = (server: EmbeddedPostgres["Service"], { after, lasting }: Options): Outage => {
  const rss = () => process.memoryUsage.rss()
  let before: number | undefined
  let most = 0

  const begin = Effect.gen(function* () {
    const screen = yield* Screen
    before = most = rss()
    yield* screen.print(`--- killing the database; RSS ${megabytes(before)}`)
    yield* server.stop("immediate")
  })
  const sample = Effect.sync(() => {
    most = Math.max(most, rss())
  }).pipe(Effect.andThen(Effect.sleep("200 millis")), Effect.forever)
  const end = Effect.gen(function* () {
    const screen = yield* Screen
    yield* Effect.orDie(server.start)
    yield* screen.print(`--- the database is back; RSS ${megabytes(rss())}`)
  })

  return {
    run: Effect.sleep(after).pipe(
      Effect.andThen(
        Effect.acquireUseRelease(
          begin,
          () => Effect.raceFirst(sample, Effect.sleep(lasting)),
          () => end
        )
      ),
      Effect.andThen(Effect.never)
    ),
    memory: () =>
      before === undefined
        ? undefined
        : `RSS ${megabytes(before)} before the outage, at most ${megabytes(most)} during it, ${megabytes(rss())} now`
  }
}
