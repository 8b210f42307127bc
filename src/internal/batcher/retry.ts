import type { Environment } from "./accumulator.ts"
import { type Batch, retryBatch } from "./batch.ts"
import type { RefusedRows } from "./refused.ts"

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
