import * as Effect from "effect/Effect"
import type { StoreError, WriteResult } from "../Store.ts"

/**
 * How many statements one flush may spend on finding rows at fault, where the
 * store does not name them. One bad row among 500 takes 18 by halving; what is
 * not found within the limit goes back and is set apart from clean rows by the
 * next flush, so that a producer of garbage costs the others a bounded share of
 * each flush.
 */
export const maxIsolationStatements = 64

/** What became of the rows of one flush. */
export interface Outcome<Row> {
  written: ReadonlyArray<Row>
  readonly rejected: Array<Row>
  /** Those of the rejected rows that had to be searched for. */
  readonly found: Array<Row>
  /** Rows whose write failed for a reason that can pass. */
  readonly unwritten: Array<Row>
  /** Rows not tried on their own within the limit, some of them at fault. */
  readonly unresolved: Array<Row>
  failure: StoreError | undefined
}

const none = <Row>(): Outcome<Row> => ({
  written: [],
  rejected: [],
  found: [],
  unwritten: [],
  unresolved: [],
  failure: undefined
})

/** None of the rows could be written. */
export const unwritten = <Row>(rows: ReadonlyArray<Row>, failure: StoreError): Outcome<Row> => ({
  ...none(),
  unwritten: Array.from(rows),
  failure
})

/**
 * Writes `rows` in one statement, and if the store rejects them, finds the rows
 * at fault: by the positions the store names, else by halving.
 */
export const writeIsolating = <Row>(
  write: (rows: ReadonlyArray<Row>) => Effect.Effect<WriteResult, StoreError>,
  clean: ReadonlyArray<Row>,
  suspects: ReadonlyArray<Row>
): Effect.Effect<Outcome<Row>> =>
  Effect.suspend(() => {
    const outcome = none<Row>()
    let budget = maxIsolationStatements

    const attempt = (rows: ReadonlyArray<Row>): Effect.Effect<void> => {
      if (rows.length === 0) return Effect.void
      if (outcome.failure !== undefined) {
        append(outcome.unwritten, rows)
        return Effect.void
      }
      return Effect.matchEffect(write(rows), {
        onSuccess: ({ refused }) => {
          const isRefused = new Set(refused.map(({ position }) => position))
          for (const position of isRefused) append(outcome.rejected, rows.slice(position, position + 1))
          succeed(isRefused.size === 0 ? rows : rows.filter((_, position) => !isRefused.has(position)))
          return Effect.void
        },
        onFailure: (error) => {
          if (error.reason._tag !== "Rejected") {
            outcome.failure = error
            append(outcome.unwritten, rows)
            return Effect.void
          }
          return reject(rows)
        }
      })
    }

    // Nearly always the one statement of the flush: no need to copy its rows.
    const succeed = (rows: ReadonlyArray<Row>): void => {
      outcome.written = outcome.written.length === 0 ? rows : outcome.written.concat(rows)
    }

    const reject = (rows: ReadonlyArray<Row>): Effect.Effect<void> => {
      if (rows.length === 1) {
        append(outcome.rejected, rows)
        append(outcome.found, rows)
        return Effect.void
      }
      return halve(rows)
    }

    const halve = (rows: ReadonlyArray<Row>): Effect.Effect<void> => {
      const middle = rows.length >>> 1
      const right = rows.slice(middle)
      const faultsBefore = outcome.rejected.length + outcome.unresolved.length
      return Effect.andThen(
        extra(rows.slice(0, middle)),
        Effect.suspend(() => {
          const leftIsClean = outcome.rejected.length + outcome.unresolved.length === faultsBefore
          // A clean left half means that the fault is in the right one: trying that whole would be a statement wasted.
          return leftIsClean && outcome.failure === undefined && right.length > 1
            ? halve(right)
            : extra(right)
        })
      )
    }

    const extra = (rows: ReadonlyArray<Row>): Effect.Effect<void> => {
      if (rows.length === 0) return Effect.void
      if (budget === 0) {
        append(outcome.unresolved, rows)
        return Effect.void
      }
      budget -= 1
      return attempt(rows)
    }

    return attempt(clean).pipe(
      Effect.andThen(Effect.forEach(suspects, (row) => extra([row]), { discard: true })),
      Effect.as(outcome)
    )
  })

const append = <A>(target: Array<A>, items: ReadonlyArray<A>): void => {
  for (const item of items) target.push(item)
}
