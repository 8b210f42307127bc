import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type { Batcher, Definition, InvalidOptionError, Message, Reason, Row } from "../Batcher.ts"
import * as BatcherMetrics from "../BatcherMetrics.ts"
import * as Flusher from "./flusher.ts"
import * as Intake from "./intake.ts"
import { Ledger } from "./ledger.ts"
import * as Meters from "./meters.ts"
import { monotonicMillis } from "./monotonicMillis.ts"
import * as Options from "./options.ts"
import * as Outage from "./outage.ts"
import * as throttledLog from "./throttledLog.ts"

/** The first pause after a failed write. */
const firstRetryMillis = 100

/** Flushes on one stack; it holds about 1,200. */
const maxDepth = 64

const build = Effect.fnUntraced(function* <M extends Message, R extends Row<M>>(
  definition: Definition<M, R>
): Effect.fn.Return<Batcher<M>, InvalidOptionError, Scope.Scope> {
  const options = yield* Options.resolve(definition.options ?? {}, definition.defaults)
  const clock = yield* Clock.Clock
  const ledger = new Ledger()
  const accumulator = yield* definition.accumulator(ledger, options.maxPending)
  const metrics = BatcherMetrics.make({
    prefix: options.metricsPrefix,
    kind: definition.kind,
    batchSizeBoundaries: definition.defaults.batchSizeBoundaries
  })
  const writing = new Set<ReadonlyArray<R>>()
  const oldest = () => accumulator.oldest(Array.from(writing).flat())
  const meters = yield* Meters.make({ metrics, ledger, clock, oldest })
  const intake = yield* Intake.make({ definition, capacity: options.capacity, ledger, meters, clock })
  const outage = Outage.make(clock, ledger)
  let closing = false
  let closed = false

  // The set of flushes opens first and closes last: the final flush below still adds to it and awaits it.
  const flushes = yield* FiberSet.make<unknown>()
  const runFlush = yield* FiberSet.runtime(flushes)<never>()
  // Those under way now: the set itself goes on filling under load, and awaiting it would never end.
  const awaitFlushes = Effect.suspend(() => Fiber.awaitAll(Array.from(flushes)))

  // A jittered delay of 0.8 × interval stays below the interval.
  const backoff = Schedule.min([
    Schedule.exponential(Math.min(firstRetryMillis, options.interval)),
    Schedule.spaced(0.8 * options.interval)
  ]).pipe(Schedule.jittered)

  // Rows that are left because the search for bad ones takes several flushes need no pause.
  let settledBefore = 0
  const closeDelays = Schedule.modifyDelay(backoff, ({ duration }) =>
    Effect.sync(() => {
      const settled = ledger.written + ledger.discarded
      const isSearching = settled > settledBefore && !outage.isDown()
      settledBefore = settled
      return isSearching ? Duration.zero : duration
    })
  )

  const close = Effect.gen(function* () {
    closing = true
    yield* intake.close
    yield* flushPending("shutdown").pipe(
      Effect.andThen(awaitFlushes),
      Effect.repeat({ schedule: closeDelays, while: () => ledger.pending > 0 }),
      Effect.interruptible,
      Effect.timeoutOption(options.shutdownTimeout)
    )
    const lost = yield* flusher.giveUp
    closed = true
    if (lost > 0) {
      yield* Effect.annotateLogs(Effect.logError(`closed with ${lost} rows unwritten: they are lost`), {
        count: lost
      })
    }
  })
  yield* Effect.addFinalizer(() => close)

  const flusher = yield* Flusher.make({
    definition,
    options,
    ledger,
    accumulator,
    writing,
    meters,
    outage,
    clock
  })

  const pendingLog = throttledLog.make(clock)
  const fold = (next: () => M | undefined) =>
    Effect.suspend(() => {
      const { discarded, dropped } = ledger
      return Effect.andThen(
        Effect.catchDefect(accumulator.fold(next), (defect) =>
          throttledLog.ignoreDefect(Effect.logError("could not take records in", defect))
        ),
        Effect.suspend(() => {
          const lost = ledger.dropped - dropped + ledger.discarded - discarded
          meters.catchUp()
          if (lost === 0) return Effect.void
          return pendingLog(
            lost,
            (count) => `lost ${count}: maxPending reached, or not what they should be`,
            {
              maxPending: options.maxPending
            }
          )
        })
      )
    })
  const drain = fold(intake.next)

  /** Returns once the batch is written; its notification is a flush's own affair, and may hang. */
  const writeBatch = (reason: Reason): Effect.Effect<Flusher.Outcome> =>
    Effect.suspend(() => {
      const written = Deferred.makeUnsafe<Flusher.Outcome>()
      runFlush(flusher.flush(reason, { afterWrite: (outcome) => Deferred.succeed(written, outcome) }))
      return Deferred.await(written)
    })

  /** Writes what is pending now, in as many batches as it takes, up to the first that fails or finds nothing left. */
  const flushPending = (reason: Reason): Effect.Effect<void> =>
    Effect.flatMap(drain, () => {
      let ended = false
      const batches = Array.from({ length: Math.ceil(ledger.pending / options.maxBatchSize) })
      const next = Effect.suspend(() =>
        ended ? Effect.void : Effect.map(writeBatch(reason), (outcome) => (ended ||= outcome !== "written"))
      )
      return Effect.forEach(batches, () => next, { concurrency: options.writeConcurrency, discard: true })
    })

  // A flush at capacity puts the scheduled one off by moving this, which costs nothing; restarting the fiber would.
  let scheduledAt = monotonicMillis(clock) + options.interval
  const untilScheduled = () => Math.max(0, scheduledAt - monotonicMillis(clock))
  const putOffScheduled = () => {
    scheduledAt = monotonicMillis(clock) + options.interval
  }
  const tick = Effect.suspend(() => {
    if (untilScheduled() > 0) return Effect.void
    putOffScheduled()
    return outage.isDown() ? Effect.void : Fiber.await(runFlush(flushPending("scheduled")))
  })
  const ticks = Schedule.modifyDelay(Schedule.spaced(options.interval), () =>
    Effect.sync(() => Duration.millis(untilScheduled()))
  )

  // Each batch has its own fiber, because its notification may still be on its way while the next is written.
  let capacityFlushes = 0
  let depth = 0
  const isFlushDue = () =>
    ledger.pending >= options.flushAt &&
    capacityFlushes < options.writeConcurrency &&
    !outage.isDown() &&
    !closing
  const flushAtCapacity = (): void => {
    while (isFlushDue()) {
      capacityFlushes += 1
      depth += 1
      runFlush(flusher.flush("capacity", { atLeast: options.flushAt, afterWrite: () => afterCapacity }))
      depth -= 1
    }
  }
  const nextAtCapacity = Effect.sync(flushAtCapacity)
  const afterCapacity = Effect.suspend(() => {
    capacityFlushes -= 1
    putOffScheduled()
    // With a store that answers at once, each batch is written on the stack of the one before.
    return depth < maxDepth ? nextAtCapacity : Effect.andThen(Effect.yieldNow, nextAtCapacity)
  })

  const attempt = Effect.suspend(() => (outage.isDown() ? writeBatch("scheduled") : Effect.void))
  const recover = outage.awaitDown.pipe(
    Effect.andThen(Effect.schedule(attempt, Schedule.while(backoff, outage.isDown))),
    Effect.andThen(Effect.sync(flushAtCapacity)),
    Effect.forever
  )

  // Stops at a full batch that can be flushed at once: what is taken whole costs less than what has to be picked out.
  const nextUpToBatch = () => (isFlushDue() ? undefined : intake.next())
  const collect = Queue.peek(intake.queue).pipe(
    Effect.andThen(fold(nextUpToBatch)),
    Effect.andThen(Effect.sync(flushAtCapacity)),
    Effect.forever({ disableYield: true }),
    Effect.catchTag("Done", () => Effect.void)
  )

  yield* Effect.forkScoped(Effect.schedule(tick, ticks))
  yield* Effect.forkScoped(recover)
  yield* Effect.forkScoped(intake.reportDrops)
  yield* Effect.forkScoped(collect)

  return {
    offerUnsafe: intake.offerUnsafe,
    flush: Effect.suspend(() => {
      if (closed) return Effect.void
      return Effect.andThen(Fiber.await(runFlush(flushPending("manual"))), Effect.asVoid(awaitFlushes))
    }),
    accounting: Effect.sync(() => ({ ...ledger }))
  }
})

/**
 * Runs a batcher until the scope closes.
 */
export const make = <M extends Message, R extends Row<M>>(
  definition: Definition<M, R>
): Effect.Effect<Batcher<M>, InvalidOptionError, Scope.Scope> =>
  // The batcher's fibers outlive the span that its layer is built in; nothing they do belongs to it.
  Effect.updateContext(
    Effect.annotateLogs(build(definition), "batcher", definition.name),
    (context: Context.Context<Scope.Scope>) => Context.omit(Tracer.ParentSpan)(context)
  )
