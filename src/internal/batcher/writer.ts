import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
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
import { attempt } from "./failure.ts"
import { begin, type FlushSpan, outcomeAttributes } from "./flushSpan.ts"
import type { Health } from "./health.ts"
import type { Meters } from "./meters.ts"
import type { Flushed, Reason } from "./models.ts"
import type { Resolved } from "./options.ts"
import * as OutcomeLog from "./outcomeLog.ts"
import type { Phase } from "./phase.ts"
import { writeBatch } from "./search.ts"
import * as StatementSize from "./statementSize.ts"
import * as Statements from "./statements.ts"
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
  const deadline = () => environment.phase.deadline(isLast)
  const statements = Statements.make({ definition, name, options, meters, statementSize, deadline })
  let turn = 0
  let supersededBefore = 0

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
      write: (positions) => statements.write(batch, span, positions)
    })
  }

  /** Refused rows are tried together or alone, and not searched: those that fail wait on. */
  const writeRetried = (batch: Batch<A>, span: FlushSpan): Effect.Effect<Outcome> =>
    Effect.match(statements.write(batch, span, undefined), {
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

  /** Writes a batch and moves its rows to where the store's answer puts them. */
  const writeAndSettle = (batch: Batch<A>, span: FlushSpan): Effect.Effect<Outcome> => {
    const rowsBefore = statementSize.rows()
    return Effect.map(
      Effect.catchDefect(write(batch, span), (defect) =>
        Effect.as(
          throttledLog.ignoreDefect(Effect.logError("a flush died", defect)),
          nothingWritten(batch.records.length, new Error("the flush died"))
        )
      ),
      (given) => {
        const outcome = settle(batch, given)
        if (outcome.failure === undefined && statementSize.rows() === rowsBefore) statementSize.succeeded()
        return outcome
      }
    )
  }

  const run = (batch: Batch<A>, reason: Reason, span: FlushSpan): Effect.Effect<Settled> => {
    const startedAt = clock.currentTimeMillisUnsafe()
    return Effect.flatMap(writeAndSettle(batch, span), (outcome) => {
      const tally = tallyOf(batch, outcome)
      span.annotate(() => outcomeAttributes(outcome, tally))
      const settled: Settled = {
        reason,
        tally,
        written: writtenGroups(batch, outcome),
        failure: outcome.failure,
        span,
        startedAt,
        isRetry: batch.retried !== undefined
      }
      const lines = linesOf(batch, outcome)
      const log = (line: Effect.Effect<void>) => throttledLog.ignoreDefect(span.log(line))
      return lines.length === 0
        ? Effect.succeed(settled)
        : Effect.as(Effect.forEach(lines, log, { discard: true }), settled)
    })
  }

  const takeAndRun = (reason: Reason, take: () => Batch<A> | undefined) =>
    permits.withPermit(
      Effect.suspend(() => {
        const batch = take()
        if (batch === undefined) return Effect.undefined
        const told = Deferred.makeUnsafe<Flushed>()
        underWay.add(told)
        let span: FlushSpan | undefined
        return Effect.onExit(
          Effect.flatMap(beginSpan(batch, reason), (begun) => {
            span = begun
            return run(batch, reason, begun)
          }),
          (exit) =>
            Effect.sync(() => {
              underWay.delete(told)
              if (Exit.isFailure(exit)) span?.end(new Error("the batcher closed before the store answered"))
              const tally = Exit.isSuccess(exit)
                ? exit.value.tally
                : tallyOf(batch, nothingWritten(batch.records.length, new Error()))
              if (batch.retried === undefined) for (const listener of listeners) listener(tally)
              Deferred.doneUnsafe(told, Exit.succeed(tally))
            })
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
