import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { bounded } from "../bounded.ts"
import * as throttledLog from "../throttledLog.ts"
import type { Batch } from "./batch.ts"
import type { Definition } from "./definition.ts"
import { type Failure, failureLabels, failureOf } from "./failure.ts"
import type { Handle } from "./flushSpan.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"
import type { StatementSize } from "./statementSize.ts"
import type { WriteResult } from "./writeResult.ts"

/** Sends rows of a batch to the store, and waits so long for the answer and no longer. */
export interface Statements<A> {
  /** One statement: these positions of the batch, or all of it. */
  readonly write: (
    batch: Batch<A>,
    span: Handle,
    positions: ReadonlyArray<number> | undefined
  ) => Effect.Effect<WriteResult | void, Failure>
}

class NoAnswer extends Error {}

export const make = <A>(environment: {
  readonly definition: Definition<A>
  readonly name: string
  readonly options: Resolved
  readonly meters: Meters
  readonly statementSize: StatementSize
  /** Comes when a statement that is sent now has been waited for long enough. */
  readonly deadline: () => Effect.Effect<unknown>
}): Statements<A> => {
  const { definition, meters, name, options, statementSize } = environment

  /** A refused row that hangs when it is tried again holds up the others for an interval at most. */
  const deadlineOf = (batch: Batch<A>): Effect.Effect<unknown> =>
    batch.retried === undefined
      ? environment.deadline()
      : Effect.raceFirst(environment.deadline(), Effect.sleep(options.interval))

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

  const noteFailure = (failure: Failure, size: number, step: Handle): void => {
    const label = failureLabels[failure.kind]
    meters.writeFailed(label)
    step.annotate(() => ({ "error.type": label }))
    // Without an answer nobody knows whether the statement was too long or the store is away: shorter ones tell.
    if (failure.kind === "unavailable" && failure.error instanceof NoAnswer) statementSize.halve(size)
  }

  const send = (
    batch: Batch<A>,
    step: Handle,
    records: ReadonlyArray<A>,
    groups: ReadonlyArray<string>
  ): Effect.Effect<WriteResult | void, Failure> =>
    bounded(
      Effect.mapError(
        Effect.suspend(() => step.inside(definition.write(records, groups))),
        failureOf
      ),
      deadlineOf(batch),
      (why) => Exit.fail(notAnswered(why, batch, records.length))
    ).pipe(
      Effect.catchDefect((defect) =>
        Effect.andThen(
          // A bug in the write, perhaps on one row only: the search tells. It is not the store being away.
          throttledLog.ignoreDefect(Effect.logError(`the write of ${name} died`, defect)),
          Effect.fail(failureOf(defect))
        )
      ),
      Effect.tapError((failure) => Effect.sync(() => noteFailure(failure, records.length, step)))
    )

  return {
    write: (batch, span, positions) => {
      const records = positions === undefined ? batch.records : pick(batch.records, positions)
      const groups = positions === undefined ? batch.groups : pick(batch.groups, positions)
      const size = records.length
      return span.step(
        `${name}.write`,
        "internal",
        () => (size === 1 ? {} : { "db.operation.batch.size": size }),
        (step) => send(batch, step, records, groups)
      )
    }
  }
}

const pick = <B>(values: ReadonlyArray<B>, positions: ReadonlyArray<number>): ReadonlyArray<B> =>
  positions.map((position) => values[position] as B)
