import type { Environment } from "./accumulator.ts"
import { type Batch, type Outcome, retryBatch } from "./batch.ts"
import { maxRefusedMillis, type RefusedRow, type RefusedRows } from "./refused.ts"

/** Moves refused rows whose pause is over into a batch of their own. */
export const takeRefused = <A>(
  refused: RefusedRows<A>,
  { account, elapsed }: Environment<A>,
  max: number
): Batch<A> | undefined => {
  const rows = refused.due(elapsed(), max)
  if (rows.length === 0) return undefined
  const batch = retryBatch(rows)
  for (const row of rows) {
    row.isTried = true
    row.record = undefined
  }
  account.refused -= rows.length
  account.inFlight += rows.length
  return batch
}

/** What becomes of a refused row that was tried again. */
export interface Retried<in A> {
  /** Nothing of it waits apart any more. What came meanwhile waits as any other. */
  readonly release: (row: RefusedRow<A>) => void
  /** It waits on with the record that was tried, or with what came meanwhile if that is newer. */
  readonly keep: (row: RefusedRow<A>, tried: A) => void
  /** It was refused for too long. */
  readonly giveUp: (row: RefusedRow<A>) => void
}

/** Settles a batch of refused rows that were tried again: those that failed wait on. */
export const settleRetried = <A>(
  refused: RefusedRows<A>,
  { account, elapsed }: Environment<A>,
  batch: Batch<A>,
  outcome: Outcome,
  { giveUp, keep, release }: Retried<A>
): void => {
  const now = elapsed()
  const whys = new Map(outcome.refused.map(({ position, why }) => [position, why]))
  const unwritten = new Set(outcome.unwritten)
  batch.retried?.forEach((row, position) => {
    const isRefused = whys.has(position)
    const hasFailed = isRefused || unwritten.has(position)
    row.isTried = false
    if (!hasFailed || batch.forgotten.has(row.origin.group)) {
      release(row)
      if (hasFailed) account.discarded += 1
      return
    }
    keep(row, batch.records[position] as A)
    if (!isRefused) return
    row.why = whys.get(position) ?? row.why
    refused.postpone(row, now)
    if (now - row.refusedAt > maxRefusedMillis) giveUp(row)
  })
  if (whys.size + unwritten.size === 0) refused.widen(now)
}
