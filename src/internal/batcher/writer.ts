import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
import { bounded } from "../bounded.ts"
import * as throttledLog from "../throttledLog.ts"
import type { Account } from "./account.ts"
import type { Accumulator } from "./accumulator.ts"
import {
  allWritten,
  type Batch,
  nothingWritten,
  type Outcome,
  tallyOf,
  type WrittenGroups,
  writtenGroups
} from "./batch.ts"
import type { Definition } from "./definition.ts"
import { attempt, failureOf } from "./failure.ts"
import { begin, type FlushSpan } from "./flushSpan.ts"
import type { Health } from "./health.ts"
import type { Meters } from "./meters.ts"
import type { Flushed, Reason } from "./models.ts"
import type { Resolved } from "./options.ts"
import * as OutcomeLog from "./outcomeLog.ts"
import type { Phase } from "./phase.ts"
import { type Failure, writeBatch } from "./search.ts"
import * as StatementSize from "./statementSize.ts"
import type { WriteResult } from "./writeResult.ts"

/** A batch whose rows are where the store's answer puts them. The announcer takes it from here. */
export interface Settled {
  readonly reason: Reason
  readonly tally: Flushed
  readonly written: WrittenGroups
  readonly failure: Error | undefined
  readonly span: FlushSpan
  /** When the batch was taken, in milliseconds since the epoch. */
  readonly startedAt: number
  /** Whether refused rows were tried again. Such a batch is no flush, and is not counted as one. */
  readonly isRetry: boolean
}

/** Takes batches and writes them. */
export interface Writer {
  /** Writes one batch, if at least `atLeast` rows are ready. */
  readonly write: (reason: Reason, atLeast?: number) => Effect.Effect<Settled | undefined>
  /** Tries refused rows again whose pause is over. */
  readonly retryRefused: Effect.Effect<Settled | undefined>
  /** Are told what became of each batch; of refused rows that were tried again they are not. */
  readonly listeners: Set<(tally: Flushed) => void>
  /** What becomes of the batches that are being written now. */
  readonly underWay: () => ReadonlyArray<Effect.Effect<Flushed>>
}

/** What the writer works with. */
export interface WriterEnvironment<A> {
  readonly definition: Definition<A>
  readonly name: string
  readonly options: Resolved
  readonly account: Account
  readonly accumulator: Accumulator<A>
  readonly health: Health
  readonly meters: Meters
  readonly clock: Clock.Clock
  readonly phase: Phase
  /** Opened when a row has been refused. */
  readonly someRefused: Latch.Latch
}

export const make = <A>(environment: WriterEnvironment<A>): Writer => {
  const { account, accumulator, clock, definition, health, meters, name, options } = environment
  const permits = Semaphore.makeUnsafe(options.writeConcurrency)
  const statementSize = StatementSize.make(options.maxBatchSize)
  const linesOf = OutcomeLog.make({ definition, options, health, statementSize, clock })
  const underWay = new Set<Deferred.Deferred<Flushed>>()
  const listeners = new Set<(tally: Flushed) => void>()
  const isLast = () => accumulator.ready() === 0 && underWay.size < 2
  let turn = 0
  let supersededBefore = 0

  /** A refused row that hangs when it is tried again holds up the others for an interval at most. */
  const deadlineOf = (batch: Batch<A>): Effect.Effect<unknown> => {
    const deadline = environment.phase.deadline(isLast)
    return batch.retried === undefined ? deadline : Effect.raceFirst(deadline, Effect.sleep(options.interval))
  }

  const notAnswered = (why: "deadline" | "interrupted", batch: Batch<A>, size: number): Failure => {
    if (why === "interrupted") return { kind: "unavailable", error: new Error("interrupted from within") }
    const isRetry = batch.retried !== undefined
    const { interval, writeTimeout } = options
    const limit = isRetry && (writeTimeout === 0 || interval < writeTimeout) ? interval : writeTimeout
    return {
      kind: size === 1 || isRetry ? "tooMuch" : "unavailable",
      error: new NoAnswer(`no answer within ${limit} ms, outcome unknown`)
    }
  }

  /** One statement: positions of the batch, or all of it. */
  const writeStatement = (batch: Batch<A>, span: FlushSpan, positions: ReadonlyArray<number> | undefined) => {
    const records = positions === undefined ? batch.records : pick(batch.records, positions)
    const groups = positions === undefined ? batch.groups : pick(batch.groups, positions)
    const size = records.length
    return span
      .step(
        `${name}.write`,
        "internal",
        () => (size === 1 ? {} : { "db.operation.batch.size": size }),
        (step) =>
          bounded(
            Effect.mapError(
              Effect.suspend(() => step.inside(definition.write(records, groups))),
              failureOf
            ),
            deadlineOf(batch),
            (why) => Exit.fail(notAnswered(why, batch, size))
          ).pipe(
            Effect.catchDefect((defect) =>
              Effect.andThen(
                // A bug in the write, perhaps on one row only: the search tells. It is not the store being away.
                throttledLog.ignoreDefect(Effect.logError(`the write of ${name} died`, defect)),
                Effect.fail(failureOf(defect))
              )
            ),
            Effect.tapError(({ kind }) =>
              Effect.sync(() => {
                meters.writeFailed(labels[kind])
                step.annotate(() => ({ "error.type": labels[kind] }))
              })
            )
          )
      )
      .pipe(Effect.tapError((failure) => Effect.sync(() => noteTimeout(failure, size))))
  }

  /** Without an answer nobody knows whether the statement was too long or the store is away: shorter ones tell. */
  const noteTimeout = (failure: Failure, size: number): void => {
    if (failure.kind === "unavailable" && failure.error instanceof NoAnswer) statementSize.halve(size)
  }

  const write = (batch: Batch<A>, span: FlushSpan): Effect.Effect<Outcome> => {
    if (batch.retried !== undefined) return writeRetried(batch, span)
    turn += 1
    return writeBatch({
      size: batch.records.length,
      groups: batch.groups,
      bytes: batch.bytes,
      bytesOf: (position) => attempt(() => definition.accumulate.bytes(batch.records[position] as A), 0),
      maxBytes: options.maxBatchBytes,
      turn,
      statementSize,
      write: (positions) => writeStatement(batch, span, positions)
    })
  }

  /** Refused rows are tried together or alone, and not searched: those that fail wait on. */
  const writeRetried = (batch: Batch<A>, span: FlushSpan): Effect.Effect<Outcome> =>
    Effect.match(writeStatement(batch, span, undefined), {
      onSuccess: (result) => ({ ...allWritten, ...(result as WriteResult | undefined) }),
      onFailure: ({ error, kind }) =>
        kind === "unavailable"
          ? nothingWritten(batch.records.length, error)
          : {
              ...allWritten,
              refused: batch.records.map((_, position) => ({ position, why: error.message }))
            }
    })

  const settle = (batch: Batch<A>, given: Outcome): Outcome => {
    const discards = options.onWriteFailure === "discard" && given.failure !== undefined
    const outcome = discards ? { ...given, failed: given.unwritten, unwritten: [] } : given
    accumulator.settle(batch, outcome)
    if (outcome.refused.length > 0) Latch.openUnsafe(environment.someRefused)
    meters.catchUp()
    return outcome
  }

  const describeOutcome = (batch: Batch<A>, outcome: Outcome, { discarded, ...tally }: Flushed) => ({
    "batcher.flush.outcome":
      outcome.failure === undefined && tally.written > 0
        ? "written"
        : tally.unwritten > 0
          ? "requeued"
          : tally.refused === batch.records.length
            ? "refused"
            : "discarded",
    "batcher.rows.written": tally.written,
    "batcher.rows.refused": tally.refused,
    "batcher.rows.discarded": discarded,
    "batcher.rows.requeued": tally.unwritten,
    ...(outcome.failure && { "error.type": labels[failureOf(outcome.failure).kind] })
  })

  const run = Effect.fnUntraced(function* (batch: Batch<A>, reason: Reason, startedAt: number) {
    const span = yield* beginSpan(batch, reason)
    return yield* Effect.onInterrupt(runUnder(span, batch, reason, startedAt), () =>
      Effect.sync(() => span.end(new Error("the batcher closed before the store answered")))
    )
  })

  const beginSpan = (batch: Batch<A>, reason: Reason): Effect.Effect<FlushSpan> => {
    const superseded = account.superseded - supersededBefore
    supersededBefore = account.superseded
    return begin(`${name}.${batch.retried === undefined ? "flush" : "retry"}`, clock, () => ({
      reason,
      batch,
      attempt: health.attempts() + 1,
      superseded,
      now: clock.currentTimeMillisUnsafe()
    }))
  }

  const runUnder = Effect.fnUntraced(function* (
    span: FlushSpan,
    batch: Batch<A>,
    reason: Reason,
    startedAt: number
  ): Effect.fn.Return<Settled> {
    const rowsBefore = statementSize.rows()
    const outcome = yield* Effect.map(
      Effect.catchDefect(write(batch, span), (defect) =>
        Effect.as(
          throttledLog.ignoreDefect(Effect.logError("a flush died", defect)),
          nothingWritten(batch.records.length, new Error("the flush died"))
        )
      ),
      (given) => settle(batch, given)
    )
    if (outcome.failure === undefined && statementSize.rows() === rowsBefore) statementSize.succeeded()
    const tally = tallyOf(batch, outcome)
    span.annotate(() => describeOutcome(batch, outcome, tally))
    for (const line of linesOf(batch, outcome)) yield* throttledLog.ignoreDefect(span.log(line))
    const written = writtenGroups(batch, outcome)
    const isRetry = batch.retried !== undefined
    return { reason, tally, written, failure: outcome.failure, span, startedAt, isRetry }
  })

  const takeAndRun = (reason: Reason, take: () => Batch<A> | undefined) =>
    permits.withPermits(1)(
      Effect.suspend(() => {
        const batch = take()
        if (batch === undefined) return Effect.undefined
        const settled = Deferred.makeUnsafe<Flushed>()
        underWay.add(settled)
        return run(batch, reason, clock.currentTimeMillisUnsafe()).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              underWay.delete(settled)
              const size = batch.records.length
              const tally = Exit.isSuccess(exit)
                ? exit.value.tally
                : tallyOf(batch, nothingWritten(size, new Error()))
              if (batch.retried === undefined) for (const listener of listeners) listener(tally)
              Deferred.doneUnsafe(settled, Exit.succeed(tally))
            })
          )
        )
      })
    )

  return {
    write: (reason, atLeast = 1) =>
      takeAndRun(reason, () =>
        accumulator.ready() >= atLeast ? accumulator.take(options.maxBatchSize) : undefined
      ),
    retryRefused: takeAndRun("scheduled", () => accumulator.takeRefused(options.maxBatchSize)),
    listeners,
    underWay: () => Array.from(underWay, (settled) => Deferred.await(settled))
  }
}

const labels = { unavailable: "Unavailable", tooMuch: "Canceled", rejected: "Rejected" } as const

class NoAnswer extends Error {}

const pick = <B>(values: ReadonlyArray<B>, positions: ReadonlyArray<number>): ReadonlyArray<B> =>
  positions.map((position) => values[position] as B)
