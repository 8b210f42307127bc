import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import { monotonicMillis } from "../monotonicMillis.ts"
import type { Account } from "./account.ts"
import type { Accumulator } from "./accumulator.ts"
import type { Flushing } from "./flushing.ts"
import type { Health } from "./health.ts"
import type { Intake } from "./intake.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"

/** The first pause after a failed write or notification. */
const firstRetryMillis = 100

/** Refused rows are looked at so many times an interval, and each time so many statements are spent on them. */
const retriesPerInterval = 5
const statementsPerRetry = 4

/** Pauses that grow, jittered, and stay below the interval. */
export const backoff = (interval: number): Schedule.Schedule<unknown> =>
  Schedule.min([
    Schedule.exponential(Math.min(firstRetryMillis, interval)),
    Schedule.spaced(0.8 * interval)
  ]).pipe(Schedule.jittered)

const never = () => false

/** The effects that decide when to flush. Each runs for as long as the batcher does. */
export const make = (environment: {
  readonly account: Account
  readonly options: Resolved
  readonly clock: Clock.Clock
  readonly intake: Pick<Intake<never>, "foldUnsafe" | "awaitQueued">
  readonly accumulator: Pick<Accumulator<never>, "ready" | "hasRefusedDue">
  readonly health: Health
  readonly meters: Meters
  readonly flushing: Flushing
  /** Open while there may be refused rows. */
  readonly someRefused: Latch.Latch
}): ReadonlyArray<Effect.Effect<unknown>> => {
  const { account, accumulator, clock, flushing, health, intake, meters, options } = environment

  const full = Latch.makeUnsafe(false)
  const isFull = () => accumulator.ready() >= options.flushAt && !health.isDown()
  const noteFull = (): void => {
    if (isFull()) Latch.openUnsafe(full)
    else Latch.closeUnsafe(full)
  }

  /** Folds what has been added since the last turn. */
  const collect = intake.awaitQueued.pipe(
    Effect.andThen(
      Effect.sync(() => {
        intake.foldUnsafe(never)
        meters.catchUp()
        noteFull()
      })
    ),
    Effect.forever({ disableYield: true })
  )

  // A flush at capacity puts the scheduled one off by moving this, which costs nothing; restarting the fiber would.
  let scheduledAt = monotonicMillis(clock) + options.interval
  const untilScheduled = () => Math.max(0, scheduledAt - monotonicMillis(clock))
  const putOffScheduled = (): void => {
    scheduledAt = monotonicMillis(clock) + options.interval
  }

  const flushFull = full.await.pipe(
    Effect.andThen(Effect.suspend(() => flushing.one("capacity", options.flushAt))),
    Effect.flatMap((settled) =>
      Effect.sync(() => {
        if (settled !== undefined) putOffScheduled()
        noteFull()
      })
    ),
    Effect.forever({ disableYield: true })
  )

  const tick = Effect.suspend(() => {
    if (untilScheduled() > 0) return Effect.void
    putOffScheduled()
    return health.isDown() ? Effect.void : flushing.all("scheduled")
  })
  const scheduled = Effect.schedule(
    tick,
    Schedule.modifyDelay(Schedule.spaced(options.interval), () =>
      Effect.sync(() => Duration.millis(untilScheduled()))
    )
  )

  // If nothing but refused rows is left, one of them has to find out whether the store is back.
  const attempt = Effect.suspend(() => {
    if (!health.isDown()) return Effect.void
    if (accumulator.ready() > 0) return flushing.one("scheduled")
    if (account.refused > 0) return flushing.refused
    return account.queued + account.inFlight > 0 ? Effect.void : health.nothingLeft()
  }).pipe(Effect.ensuring(Effect.sync(flushing.attempted)))
  const retryOutage = health.awaitDown.pipe(
    Effect.andThen(Effect.schedule(attempt, Schedule.while(backoff(options.interval), health.isDown))),
    Effect.andThen(Effect.sync(noteFull)),
    Effect.forever
  )

  let statements = 0
  const retryDue = Effect.suspend(() => {
    statements = 0
    return Effect.whileLoop({
      while: () => statements < statementsPerRetry && accumulator.hasRefusedDue() && !health.isDown(),
      body: () => flushing.refused,
      step: () => {
        statements += 1
      }
    })
  })
  const retryPause = Math.max(1, Math.floor(options.interval / retriesPerInterval))
  const retryRefused = environment.someRefused.await.pipe(
    Effect.andThen(
      Effect.schedule(
        retryDue,
        Schedule.while(Schedule.spaced(retryPause), () => account.refused + account.inFlight > 0)
      )
    ),
    Effect.andThen(
      Effect.sync(() => {
        if (account.refused === 0) Latch.closeUnsafe(environment.someRefused)
      })
    ),
    Effect.forever
  )

  const flushesFull = Array.from({ length: options.writeConcurrency }, () => flushFull)
  return [scheduled, retryOutage, retryRefused, ...flushesFull, collect]
}
