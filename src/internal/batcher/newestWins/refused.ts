import type { Batch, Outcome } from "../batch.ts"
import type { Discarded } from "../models.ts"
import { maxRefusedMillis, type RefusedRow } from "../refused.ts"
import { merge, mergeRefused } from "./fold.ts"
import type { State } from "./state.ts"

/** Rows that were tried again: those that failed wait on, with what has come since. */
export const settleRetried = <A>(
  state: State<A>,
  batch: Batch<A>,
  rows: ReadonlyArray<RefusedRow<A>>,
  outcome: Outcome
): void => {
  const { account, elapsed } = state.environment
  const whys = new Map(outcome.refused.map(({ position, why }) => [position, why]))
  const unwritten = new Set(outcome.unwritten)
  rows.forEach((row, position) => {
    const stays = whys.has(position) || unwritten.has(position)
    row.isTried = false
    if (!stays || batch.forgotten.has(row.origin.group)) {
      release(state, row)
      if (stays) account.discarded += 1
      return
    }
    row.why = whys.get(position) ?? row.why
    if (whys.has(position)) state.refused.postpone(row, elapsed())
    // What was tried waits again, unless something newer has come for its key.
    const tried = batch.records[position] as A
    const isOlderThan = (since: A) => state.timeOf(tried) <= state.timeOf(since)
    mergeRefused(state, row, tried, state.bytesOf(tried), isOlderThan)
    const isRefusedForLong = whys.has(position) && elapsed() - row.refusedAt > maxRefusedMillis
    if (isRefusedForLong) giveUpRefused(state, row, "refused")
  })
  if (whys.size + unwritten.size === 0) state.refused.widen(elapsed())
}

/** Ends the time apart of a key: what came meanwhile waits as any other. */
export const release = <A>(state: State<A>, row: RefusedRow<A>): void => {
  const { account } = state.environment
  const { record } = row
  const { since, spans } = row.origin
  const group = state.groups.getOrAdd(row.origin.group)
  remove(state, row)
  if (record === undefined) return
  account.refused -= 1
  account.bytes -= row.bytes
  merge(state, group, { record, likely: 0, since, spans, isLater: true })
}

/** Gives up what waits of a refused row. What is being tried of it is for its batch to settle. */
export const giveUpRefused = <A>(
  state: State<A>,
  row: RefusedRow<A>,
  reason: Discarded<A>["reason"] | "forgotten"
): void => {
  const { account } = state.environment
  const { record } = row
  if (record === undefined) return
  account.refused -= 1
  account.discarded += 1
  account.bytes -= row.bytes
  if (reason !== "forgotten") state.tell(row.origin.group, record, reason, row.why)
  if (row.isTried) row.record = undefined
  else remove(state, row)
}

const remove = <A>(state: State<A>, row: RefusedRow<A>): void => {
  const group = state.groups.getOrAdd(row.origin.group)
  state.refused.delete(row)
  group.refused?.delete(row.key)
  if (group.refused?.size === 0) group.refused = undefined
}
