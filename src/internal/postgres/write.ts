import type * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Store from "../../Store.ts"
import * as Constraints from "./constraints.ts"
import type { Run } from "./session.ts"
import * as sqlError from "./sqlError.ts"

// The way of a batch through one table: what the client can see is refused
// first, the rest is written by one statement, and only where that fails or
// changes fewer rows than it was given is the server asked why. There are no
// transaction blocks: behind a pooler a failure would leave one open.

/** The statements for one table. Each takes the parameters of `Rows`. */
export interface Target {
  readonly screened: Constraints.Screened
  readonly write: string
  /** The same, where two rows of a batch may turn out to be one. */
  readonly writeDistinct: string | undefined
  /** Which rows are not as they were given: `position` and `isMissing`. */
  readonly unchanged: string
  /** Whether a row counts as changed if the table held it already. */
  readonly heldIsChanged: boolean
  /** Which rows another transaction has locked: `position`. */
  readonly locked: string | undefined
  /** The parameters of no rows. */
  readonly none: ReadonlyArray<PgTypes.Parameter>
}

/** The rows of one batch. */
export interface Rows {
  readonly size: number
  /** What the client can see that PostgreSQL would refuse. */
  readonly refused: ReadonlyArray<Store.Refusal>
  readonly parameters: (positions: ReadonlyArray<number>) => ReadonlyArray<PgTypes.Parameter>
}

/** After refused rows, so many batches in a row have to be clean before the next is written unseen. */
const cleanBatches = 8

/** How often one batch is written again without rows that were found to be refused. */
const maxRounds = 3

/** How long the server has to answer whether it is there. */
const probeTimeout = "5 seconds"

/** What a batch still has to do, and what was found so far. Positions are those of the batch. */
interface Progress {
  readonly rows: Rows
  readonly kept: ReadonlyArray<number>
  readonly refused: ReadonlyArray<Store.Refusal>
}

const without = (progress: Progress, refused: ReadonlyArray<Store.Refusal>): Progress => {
  if (refused.length === 0) return progress
  const isRefused = new Set(refused.map(({ position }) => position))
  return {
    rows: progress.rows,
    kept: progress.kept.filter((position) => !isRefused.has(position)),
    refused: [...progress.refused, ...refused].sort((a, b) => a.position - b.position)
  }
}

/** Makes a function that writes a batch to one table. */
export const make = (run: Run, target: Target) => {
  const screen = Constraints.make(run, target.screened)
  let batchesToScreen = 0

  const parametersOf = ({ kept, rows }: Progress) => rows.parameters(kept)

  /** The server names rows by where they stand among its parameters. */
  const toBatch = (
    { kept }: Progress,
    refusals: ReadonlyArray<Store.Refusal>
  ): ReadonlyArray<Store.Refusal> =>
    refusals.map(({ position, why }) => ({ position: kept[position] as number, why }))

  /** All rows refused is not for the table to say of each: then none is named. */
  const unlessAll = (progress: Progress, refusals: ReadonlyArray<Store.Refusal>) =>
    refusals.length < progress.kept.length ? toBatch(progress, refusals) : []

  const brokenBy = (progress: Progress, expectsSome: boolean) =>
    Effect.map(screen(parametersOf(progress), expectsSome), (refusals) => unlessAll(progress, refusals))

  const lockedOf = (progress: Progress) => {
    if (target.locked === undefined) return Effect.succeed([])
    return run<{ readonly position: number }>(target.locked, parametersOf(progress)).pipe(
      Effect.map(({ rows }) =>
        unlessAll(
          progress,
          rows.map(({ position }) => ({
            position,
            why: `SQLSTATE ${sqlError.lockNotAvailable}, the row is locked`
          }))
        )
      ),
      Effect.catch(() => Effect.succeed([]))
    )
  }

  /** The rows that the error is about, if the server can name them. */
  const atFault = (progress: Progress, error: SqlError): Effect.Effect<ReadonlyArray<Store.Refusal>> => {
    if (progress.kept.length === 1) return Effect.succeed([])
    if (sqlError.sqlStateOf(error) === sqlError.lockNotAvailable) return lockedOf(progress)
    if (!sqlError.isBroken(error)) return Effect.succeed([])
    return Effect.map(brokenBy(progress, true), (refusals) => {
      if (refusals.length > 0) batchesToScreen = cleanBatches
      return refusals
    })
  }

  /** The same statement without rows tells whether table, grants and server are as they should be. */
  const explain = (error: SqlError): Effect.Effect<Store.StoreError> => {
    const verdict = sqlError.judge(error)
    if (verdict._tag === "Decided") return Effect.succeed(verdict.error)
    return run(target.write, target.none).pipe(
      Effect.timeoutOption(probeTimeout),
      Effect.map((answer) =>
        answer._tag === "Some" ? sqlError.afterAsking(error, verdict.isLost) : sqlError.unavailable(error)
      ),
      Effect.catch((failure) => Effect.succeed(sqlError.unavailable(failure)))
    )
  }

  const execute = (progress: Progress): Effect.Effect<number, SqlError> => {
    const attempt = (text: string) =>
      Effect.map(
        Effect.suspend(() => run(text, parametersOf(progress))),
        ({ rowCount }) => rowCount
      )
    return attempt(target.write).pipe(
      Effect.catchIf(sqlError.isPassing, () => attempt(target.write)),
      Effect.catchIf(
        (error) =>
          target.writeDistinct !== undefined && sqlError.sqlStateOf(error) === sqlError.cardinalityViolation,
        () => attempt(target.writeDistinct ?? target.write)
      )
    )
  }

  const attempt = (progress: Progress, round: number): Effect.Effect<Store.WriteResult, Store.StoreError> =>
    Effect.matchEffect(execute(progress), {
      onSuccess: (changed) => account(progress, changed),
      onFailure: (error) =>
        Effect.flatMap(round < maxRounds ? atFault(progress, error) : Effect.succeed([]), (refused) =>
          refused.length > 0
            ? attempt(without(progress, refused), round + 1)
            : Effect.flatMap(explain(error), Effect.fail)
        )
    })

  /** Garbage seldom comes once: for a while the rows are looked at before they are written. */
  const screenFirst = (progress: Progress): Effect.Effect<Progress> => {
    if (batchesToScreen === 0 || progress.kept.length === 1) return Effect.succeed(progress)
    return Effect.map(brokenBy(progress, false), (refused) => {
      batchesToScreen = refused.length > 0 ? cleanBatches : batchesToScreen - 1
      return without(progress, refused)
    })
  }

  /** Only where the statement changed fewer rows than it was given does anyone ask which. */
  const account = (
    progress: Progress,
    changed: number
  ): Effect.Effect<Store.WriteResult, Store.StoreError> => {
    const { kept, refused } = progress
    const short = kept.length - changed
    if (short <= 0) return Effect.succeed({ ...Store.allChanged(kept.length), refused })
    return run<{ readonly position: number; readonly isMissing: boolean }>(
      target.unchanged,
      parametersOf(progress)
    ).pipe(
      Effect.mapError(sqlError.classify),
      Effect.map(({ rows }) => {
        const found = rows.slice(0, short)
        const at = (isMissing: boolean) =>
          found.flatMap((row) => (row.isMissing === isMissing ? [kept[row.position] as number] : []))
        const missing = at(true)
        if (target.heldIsChanged)
          return { changed: kept.length - missing.length, superseded: [], missing, refused }
        const named = new Set(found.map(({ position }) => kept[position] as number))
        // Overtaken since, or the same row given twice: any will do, as long as the numbers add up.
        const others = kept.filter((position) => !named.has(position)).slice(0, short - found.length)
        const superseded = [...at(false), ...others].sort((a, b) => a - b)
        return { changed, superseded, missing: missing.sort((a, b) => a - b), refused }
      })
    )
  }

  return (rows: Rows): Effect.Effect<Store.WriteResult, Store.StoreError> =>
    Effect.suspend(() => {
      const all = Array.from({ length: rows.size }, (_, position) => position)
      const progress = without({ rows, kept: all, refused: [] }, rows.refused)
      return progress.kept.length === 0
        ? Effect.succeed({ ...Store.allChanged(0), refused: progress.refused })
        : Effect.flatMap(screenFirst(progress), (screened) => attempt(screened, 0))
    })
}
