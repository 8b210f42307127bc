import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as LogLevel from "effect/LogLevel"
import * as Semaphore from "effect/Semaphore"
import type { Accumulator, Definition, Message, Reason, Row } from "../Batcher.ts"
import { type StoreError, unavailable, type WriteResult } from "../Store.ts"
import { bounded } from "./bounded.ts"
import type { Flush } from "./flushSpan.ts"
import * as flushSpan from "./flushSpan.ts"
import * as isolate from "./isolate.ts"
import type { Ledger } from "./ledger.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"
import type { Outage } from "./outage.ts"
import * as Publisher from "./publisher.ts"
import { Suspects } from "./suspects.ts"
import * as throttledLog from "./throttledLog.ts"

/** How many discarded rows a log line names, and how much of a key, which may be what is wrong with the row. */
const maxNamed = 10
const maxKeyLength = 127

export type Outcome = "empty" | "written" | "failed"

export interface Flusher {
  /**
   * Takes one batch, if at least `atLeast` rows are pending, and writes and
   * publishes it. `afterWrite` is told the outcome once the next write may
   * start; the notification follows.
   */
  readonly flush: (
    reason: Reason,
    options: {
      readonly atLeast?: number | undefined
      readonly afterWrite: (outcome: Outcome) => Effect.Effect<unknown>
    }
  ) => Effect.Effect<void>
  /** Counts everything not written as lost; what a late write still does is not counted any more. */
  readonly giveUp: Effect.Effect<number>
}

export const make = Effect.fnUntraced(function* <M extends Message, R extends Row<M>>(engine: {
  readonly definition: Definition<M, R>
  readonly options: Resolved
  readonly ledger: Ledger
  readonly accumulator: Accumulator<M, R>
  /** The batches in a write. */
  readonly writing: Set<ReadonlyArray<R>>
  readonly meters: Meters
  readonly outage: Outage
  readonly clock: Clock.Clock
}): Effect.fn.Return<Flusher> {
  const { accumulator, clock, definition, ledger, meters, options, outage, writing } = engine
  const permits = yield* Semaphore.make(options.writeConcurrency)
  const discardLog = throttledLog.make(clock)
  const publish = Publisher.make({ definition, meters, clock, timeout: options.writeTimeout })
  // What is no string may throw when it is made one.
  const keyOf = (row: R): string => {
    try {
      return String(definition.keyOf(row))
    } catch {
      return "not a string"
    }
  }
  const suspects = new Suspects<R>((row) => `${definition.agentOf(row.origin)} ${keyOf(row)}`)
  let closed = false
  /** The count when the flush before took its rows. */
  let superseded = 0

  const timedOut = () =>
    Exit.fail(unavailable(new Error(`no answer within ${options.writeTimeout} ms, outcome unknown`)))
  const writeUnder =
    ({ span }: Flush) =>
    (rows: ReadonlyArray<R>): Effect.Effect<WriteResult, StoreError> =>
      span.step(
        `${definition.name}.write`,
        "internal",
        () => (rows.length === 1 ? {} : { "db.operation.batch.size": rows.length }),
        (step) =>
          bounded(
            Effect.suspend(() => step.inside(definition.write(rows))),
            options.writeTimeout,
            timedOut
          ).pipe(
            // A defect says nothing about the rows: they may be written again.
            Effect.catchDefect((defect) => Effect.fail(unavailable(defect))),
            Effect.tapError(({ reason }) =>
              Effect.sync(() => {
                meters.writeFailed(reason._tag)
                step.annotate(() => ({ "error.type": reason._tag }))
              })
            )
          )
      )

  const reportDiscarded = (rows: ReadonlyArray<R>, why: string): Effect.Effect<void> => {
    if (rows.length === 0) return Effect.void
    const named = rows.slice(0, maxNamed).map((row) => ({
      agent: definition.agentOf(row.origin),
      key: keyOf(row).slice(0, maxKeyLength)
    }))
    return discardLog(rows.length, (count) => `discarded ${count} rows: ${why}`, { rows: named })
  }

  const remember = ({ found, rejected, unresolved, written }: isolate.Outcome<R>): void => {
    suspects.clear(written)
    if (definition.keysRecur ?? true) suspects.add(found)
    else suspects.clear(rejected)
    suspects.add(unresolved)
  }

  // The account first, then the log: between two lines other fibers run, the close of the batcher among them.
  const settle = Effect.fnUntraced(function* (
    rows: ReadonlyArray<R>,
    outcome: isolate.Outcome<R>,
    flush: Flush
  ) {
    writing.delete(rows)
    if (closed) return
    const { failure, rejected, unresolved, unwritten, written } = outcome
    const requeues = options.onWriteFailure === "requeue"
    const back = requeues ? unresolved.concat(unwritten) : unresolved
    const discarded = rejected.length + (requeues ? 0 : unwritten.length)
    ledger.inFlight -= written.length + discarded
    ledger.written += written.length
    ledger.discarded += discarded
    if (back.length > 0) yield* accumulator.restore(back)
    remember(outcome)
    flush.span.annotate(() => ({
      "batcher.flush.outcome":
        failure === undefined && written.length > 0 ? "written" : back.length > 0 ? "requeued" : "discarded",
      "batcher.rows.written": written.length,
      "batcher.rows.discarded": discarded,
      "batcher.rows.requeued": back.length,
      ...(failure && { "error.type": failure.reason._tag })
    }))
    yield* flush.log(reportDiscarded(rejected, "rejected by the store"))
    if (failure === undefined) {
      if (outage.isDown()) yield* flush.log(outage.succeeded)
      return
    }
    yield* flush.log(requeues ? outage.failed(failure) : reportDiscarded(unwritten, failure.message))
  })

  const writeAndPublish = Effect.fnUntraced(function* (
    rows: ReadonlyArray<R>,
    allByAgent: () => ReadonlyMap<string, number>,
    reason: Reason,
    afterWrite: (outcome: Outcome) => Effect.Effect<unknown>,
    span: flushSpan.Handle
  ) {
    const start = clock.currentTimeMillisUnsafe()
    const flush: Flush = {
      span,
      log: (line) => span.inside(Effect.annotateLogs(line, { reason, batchSize: rows.length, ...span.ids }))
    }
    const { failure, written } = yield* Effect.flatMap(
      isolate.writeIsolating(writeUnder(flush), ...suspects.split(rows)),
      (outcome) => Effect.as(settle(rows, outcome, flush), outcome)
    ).pipe(
      Effect.onExit((exit) =>
        afterWrite(exit._tag === "Success" && exit.value.failure === undefined ? "written" : "failed")
      )
    )
    meters.catchUp()
    if (written.length > 0) {
      const rowsByAgent = written.length === rows.length ? allByAgent() : countByAgent(written)
      yield* Effect.ensuring(
        publish(Array.from(rowsByAgent.keys()), flush),
        Effect.sync(() => {
          const seconds = (clock.currentTimeMillisUnsafe() - start) / 1000
          meters.flushed(reason, rowsByAgent, written.length, seconds)
        })
      )
      if (yield* LogLevel.isEnabled("Debug")) {
        yield* flush.log(Effect.logDebug(`flushed ${written.length} rows`))
      }
    }
    // Failing inside the span marks it as failed; the outage has been logged.
    if (failure !== undefined) yield* Effect.fail(failure)
  })

  const countByAgent = (rows: ReadonlyArray<R>): Map<string, number> => {
    const counts = new Map<string, number>()
    // Rows of one agent stand together, so that the map is asked once per agent.
    for (let start = 0, end = 1; start < rows.length; start = end++) {
      const agent = definition.agentOf((rows[start] as R).origin)
      while (end < rows.length && definition.agentOf((rows[end] as R).origin) === agent) end += 1
      counts.set(agent, (counts.get(agent) ?? 0) + end - start)
    }
    return counts
  }

  const takeAndFlush = Effect.fnUntraced(function* (
    reason: Reason,
    atLeast: number,
    afterWrite: (outcome: Outcome) => Effect.Effect<unknown>
  ) {
    const rows = ledger.pending >= atLeast ? yield* accumulator.take(options.maxBatchSize) : []
    if (rows.length === 0) {
      yield* afterWrite("empty")
      return
    }
    writing.add(rows)
    const supersededBefore = superseded
    superseded = ledger.superseded
    let byAgent: ReadonlyMap<string, number> | undefined
    const allByAgent = () => {
      byAgent ??= countByAgent(rows)
      return byAgent
    }
    yield* flushSpan
      .root(
        `${definition.name}.flush`,
        () =>
          flushSpan.describe({
            reason,
            rows,
            agents: allByAgent().size,
            attempt: outage.attempts() + 1,
            superseded: ledger.superseded - supersededBefore,
            now: clock.currentTimeMillisUnsafe()
          }),
        (span) => writeAndPublish(rows, allByAgent, reason, afterWrite, span)
      )
      .pipe(
        Effect.catchDefect((defect) => {
          const failure = unavailable(defect)
          return writing.has(rows)
            ? settle(rows, isolate.unwritten(rows, failure), flushSpan.untraced)
            : Effect.die(defect)
        }),
        Effect.ignore
      )
  })

  return {
    flush: (reason, { afterWrite, atLeast = 1 }) => {
      let told = false
      const tellOnce = (outcome: Outcome) =>
        Effect.suspend(() => {
          if (told) return Effect.void
          told = true
          return Effect.andThen(permits.release(1), afterWrite(outcome))
        })
      // An accumulator may throw. The next flush, and whoever awaits this one, must not wait for it for ever.
      const guarded = takeAndFlush(reason, atLeast, tellOnce).pipe(
        Effect.catchDefect((defect) => Effect.logError("a flush died", defect)),
        throttledLog.ignoreDefect,
        Effect.ensuring(tellOnce("failed"))
      )
      return Effect.andThen(permits.take(1), guarded)
    },
    giveUp: Effect.sync(() => {
      closed = true
      const lost = ledger.pending + ledger.inFlight
      ledger.pending = 0
      ledger.inFlight = 0
      ledger.discarded += lost
      meters.catchUp()
      return lost
    })
  }
})
