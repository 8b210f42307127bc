import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Account } from "./account.ts"
import type { Accumulator } from "./accumulator.ts"
import type { Announcer } from "./announcer.ts"
import type { Discards } from "./discards.ts"
import type { Flushing } from "./flushing.ts"
import type { Intake } from "./intake.ts"
import type { IntakeLog } from "./intakeLog.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"
import type { Phase } from "./phase.ts"
import { backoff } from "./triggers.ts"
import type { Writer } from "./writer.ts"

/** How long the close waits for notifications once everything is written. */
const maxAnnouncingMillis = 5_000

/**
 * Writes what is left, within `shutdownTimeout`, and then says what was lost.
 * Writes are awaited, notifications only once everything is written.
 *
 * All of this happens in a fiber of its own: a scope is often closed because its
 * owner was interrupted, and that interruption must not reach the last writes.
 */
export const close = <A>(environment: {
  readonly account: Account
  readonly accumulator: Accumulator<A>
  readonly announcer: Announcer
  readonly discards: Discards<A>
  readonly flushing: Flushing
  readonly intake: Intake<A>
  readonly intakeLog: IntakeLog
  readonly meters: Meters
  readonly options: Resolved
  readonly phase: Phase
  readonly writer: Writer
}): Effect.Effect<void> => {
  const { account, accumulator, announcer, discards, flushing, intake, options, phase, writer } = environment
  const { shutdownTimeout } = options

  // A write that hangs gets four fifths of the time if others are waiting, and all of it otherwise.
  const cutHanging = Effect.suspend(() => {
    const isAlone = accumulator.ready() === 0 && writer.underWay().length < 2
    return Effect.andThen(
      Effect.sleep(isAlone ? shutdownTimeout : 0.8 * shutdownTimeout),
      Effect.sync(() => phase.cutOff())
    )
  })
  const finishUnderWay = Effect.suspend(() => Effect.all(writer.underWay(), { discard: true }))

  // Rows that are left because the search through a batch takes several flushes need no pause.
  const sweep: Effect.Effect<void> = Effect.suspend(() => flushing.all("shutdown")).pipe(
    Effect.repeat({ while: ({ failure, flushed }) => failure === undefined && flushed.unwritten > 0 }),
    Effect.asVoid
  )
  const sweepAll = Effect.repeat(sweep, {
    schedule: backoff(options.interval),
    while: () => accumulator.ready() > 0
  })
  const writeRest =
    shutdownTimeout === 0
      ? Effect.andThen(finishUnderWay, sweep)
      : Effect.raceFirst(
          Effect.andThen(finishUnderWay, sweepAll),
          Effect.andThen(cutHanging, Effect.never)
        ).pipe(Effect.timeoutOption(shutdownTimeout))

  // Nobody attempts anything any more: whoever has asked for a flush during an outage is told what is left.
  const answerFlushes = Effect.andThen(Effect.sync(flushing.attempted), Effect.yieldNow)

  const announceRest = Effect.suspend(() => {
    const millis = Math.min(maxAnnouncingMillis, phase.millisLeft())
    return shutdownTimeout === 0
      ? Effect.void
      : Effect.andThen(
          Effect.timeoutOption(flushing.awaitAnnounced, millis),
          Effect.suspend(() => announcer.last(Math.min(maxAnnouncingMillis, phase.millisLeft())))
        )
  })

  const giveUp = Effect.suspend(() => {
    const refused = account.refused
    const lost = account.pending + account.inFlight
    accumulator.giveUp()
    environment.meters.catchUp()
    phase.isClosed = true
    flushing.attempted()
    const log = (line: Effect.Effect<void>, count: number) =>
      count === 0 ? Effect.void : Effect.annotateLogs(line, { count })
    return Effect.andThen(
      log(Effect.logError(`closed with ${lost} rows unwritten: they are lost`), lost),
      log(Effect.logError(`closed with ${refused} rows that the store refused: they are lost`), refused)
    )
  })

  const closing = Effect.gen(function* () {
    phase.close()
    intake.closeUnsafe()
    intake.foldUnsafe(() => false)
    yield* environment.intakeLog.last
    yield* writeRest
    yield* answerFlushes
    yield* announceRest
    yield* giveUp
    yield* discards.drain(Math.max(1_000, phase.millisLeft()))
    yield* flushing.interruptAll
  })
  return Effect.uninterruptible(
    Effect.flatMap(Effect.forkDetach(closing, { startImmediately: true }), Fiber.join)
  )
}
