import * as Effect from "effect/Effect"
import { allWritten, nothingWritten, type Outcome } from "./batch.ts"
import type { Failure } from "./failure.ts"
import { singlesOf, singlesOfAnOutage } from "./singles.ts"
import { cutBySize, type StatementSize } from "./statementSize.ts"
import type { Refusal, WriteResult } from "./writeResult.ts"

/** How many statements the search through one batch may take; the rest waits for the next flush. */
export const maxSearchStatements = 20

/** What is searched. */
export interface Search {
  readonly size: number
  readonly groups: ReadonlyArray<string>
  readonly bytesOf: (position: number) => number
  readonly bytes: number
  readonly maxBytes: number
  /** Differs from flush to flush, so that other rows are tried alone each time. */
  readonly turn: number
  readonly statementSize: StatementSize
  /** One statement; `undefined` stands for all rows. */
  readonly write: (positions: ReadonlyArray<number> | undefined) => Effect.Effect<WriteResult | void, Failure>
}

/**
 * Writes a batch, and where the store refuses it, finds the rows at fault by
 * halving. What counts is what becomes of a row alone and of the others without
 * it, never a code: a row that fails alone while another succeeds is refused;
 * when three single rows have failed and none has succeeded, it is the store's
 * trouble and nobody's row.
 */
export const writeBatch = (search: Search): Effect.Effect<Outcome> =>
  Effect.suspend(() => {
    const isOneStatement = search.size <= search.statementSize.rows() && search.bytes <= search.maxBytes
    if (!isOneStatement) return new Searching(search).run()
    return Effect.matchEffect(search.write(undefined), {
      onSuccess: (result) => Effect.succeed(fromResult(result)),
      onFailure: (failure) =>
        failure.kind === "unavailable"
          ? Effect.succeed(nothingWritten(search.size, failure.error))
          : new Searching(search).runAfter(failure)
    })
  })

const fromResult = (result: WriteResult | void): Outcome =>
  result === undefined || result.superseded.length + result.missing.length + result.refused.length === 0
    ? allWritten
    : { ...allWritten, superseded: result.superseded, missing: result.missing, refused: result.refused }

class Searching {
  private readonly search: Search
  private readonly superseded: Array<number> = []
  private readonly missing: Array<number> = []
  private readonly refused: Array<Refusal> = []
  private readonly unwritten: Array<number> = []
  private readonly failedAlone: Array<Refusal> = []
  /** Rows that were tried alone before the others. */
  private readonly tried = new Set<number>()
  private statementsLeft = Number.POSITIVE_INFINITY
  private hasSucceeded = false
  private stoppedBy: Error | undefined

  constructor(search: Search) {
    this.search = search
  }

  run(): Effect.Effect<Outcome> {
    return Effect.map(
      Effect.forEach(cutBySize(this.search), (positions) => this.attempt(positions), { discard: true }),
      () => this.outcome()
    )
  }

  /** The whole batch has failed as one statement already. */
  runAfter(failure: Failure): Effect.Effect<Outcome> {
    this.statementsLeft = maxSearchStatements
    return Effect.map(this.fail(range(this.search.size), failure), () => this.outcome())
  }

  private outcome(): Outcome {
    const { failedAlone, missing, superseded } = this
    // Nothing else was written: no row can be told from a store that refuses everything.
    const isStoresTrouble = !this.hasSucceeded && failedAlone.length > 0
    const [first] = failedAlone
    return {
      ...allWritten,
      superseded: superseded.sort(ascending),
      missing: missing.sort(ascending),
      refused: isStoresTrouble ? this.refused : this.refused.concat(failedAlone),
      unwritten: (isStoresTrouble
        ? this.unwritten.concat(failedAlone.map(({ position }) => position))
        : this.unwritten
      ).sort(ascending),
      failure: this.stoppedBy ?? (isStoresTrouble && first !== undefined ? new Error(first.why) : undefined)
    }
  }

  /** Writes these rows; answers whether all of them were. */
  private attempt(wanted: ReadonlyArray<number>): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const positions = wanted.filter((position) => !this.tried.has(position))
      if (positions.length === 0) return Effect.succeed(true)
      if (this.stoppedBy !== undefined || this.statementsLeft === 0) return this.leave(positions)
      if (positions.length > this.search.statementSize.rows()) return this.halve(positions, false)
      this.statementsLeft -= 1
      return Effect.matchEffect(this.search.write(positions), {
        onSuccess: (result) => Effect.succeed(this.succeed(positions, result)),
        onFailure: (failure) => this.fail(positions, failure)
      })
    })
  }

  private leave(positions: ReadonlyArray<number>): Effect.Effect<boolean> {
    for (const position of positions) this.unwritten.push(position)
    return Effect.succeed(false)
  }

  private succeed(positions: ReadonlyArray<number>, result: WriteResult | void): boolean {
    if (result === undefined) {
      this.hasSucceeded = true
      return true
    }
    if (result.refused.length < positions.length) this.hasSucceeded = true
    for (const position of result.superseded) this.superseded.push(positions[position] as number)
    for (const position of result.missing) this.missing.push(positions[position] as number)
    for (const { position, why } of result.refused) {
      this.refused.push({ position: positions[position] as number, why })
    }
    return true
  }

  private fail(positions: ReadonlyArray<number>, failure: Failure): Effect.Effect<boolean> {
    if (failure.kind === "unavailable") {
      this.stoppedBy = failure.error
      return this.leave(positions)
    }
    const [position] = positions
    if (positions.length === 1 && position !== undefined) {
      this.failedAlone.push({ position, why: failure.error.message })
      if (!this.hasSucceeded && this.failedAlone.length >= singlesOfAnOutage) this.stoppedBy = failure.error
      return Effect.succeed(false)
    }
    this.statementsLeft = Math.min(this.statementsLeft, maxSearchStatements)
    return this.divide(positions, failure)
  }

  private divide(positions: ReadonlyArray<number>, failure: Failure): Effect.Effect<boolean> {
    return Effect.andThen(
      this.hasSucceeded ? Effect.void : this.trySingles(positions),
      Effect.suspend(() => this.halve(positions, failure.kind === "rejected", failure))
    )
  }

  /** Whether the store takes any row at all: rows of different groups alone, until one succeeds. */
  private trySingles(positions: ReadonlyArray<number>): Effect.Effect<void> {
    const singles = singlesOf(positions, this.search)
    let next = 0
    return Effect.whileLoop({
      while: () => next < singles.length && !this.hasSucceeded && this.stoppedBy === undefined,
      body: () => {
        const position = singles[next++] as number
        return Effect.tap(this.attempt([position]), () => Effect.sync(() => this.tried.add(position)))
      },
      step: () => {}
    })
  }

  private halve(
    positions: ReadonlyArray<number>,
    isRowAtFault: boolean,
    failure?: Failure
  ): Effect.Effect<boolean> {
    const rest = positions.filter((position) => !this.tried.has(position))
    const middle = rest.length >>> 1
    const [left, right] = [rest.slice(0, middle), rest.slice(middle)]
    return Effect.flatMap(this.attempt(left), (leftPassed) => {
      // A clean left half leaves the fault to the right one: trying that whole would be a statement wasted.
      const isFaultKnown =
        isRowAtFault && leftPassed && left.length > 0 && right.length > 1 && this.foundAlone(positions) === 0
      const others =
        isFaultKnown && this.stoppedBy === undefined && this.statementsLeft > 0
          ? this.halve(right, true, failure)
          : this.attempt(right)
      return Effect.map(others, (rightPassed) => {
        const passed = leftPassed && rightPassed
        if (passed && failure?.kind === "tooMuch") this.search.statementSize.passed(right.length)
        return passed
      })
    })
  }

  /** How many of these rows have failed alone. */
  private foundAlone(positions: ReadonlyArray<number>): number {
    const among = new Set(positions)
    return this.failedAlone.filter(({ position }) => among.has(position)).length
  }
}

const range = (size: number): ReadonlyArray<number> => Array.from({ length: size }, (_, position) => position)

const ascending = (a: number, b: number): number => a - b
