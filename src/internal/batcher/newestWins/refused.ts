import type { Batch, Outcome } from "../batch.ts"
import type { Discarded } from "../models.ts"
import type { RefusedRow } from "../refused.ts"
import * as Retry from "../retry.ts"
import { merge, mergeRefused } from "./fold.ts"
import type { State } from "./state.ts"

/** Rows that were tried again: those that failed wait on, with what has come since. */
export const settleRetried = <A>(state: State<A>, batch: Batch<A>, outcome: Outcome): void =>
  Retry.settleRetried(state.refused, state.environment, batch, outcome, {
    release: (row) => release(state, row),
    keep: (row, tried) => {
      const isOlderThan = (since: A) => state.timeOf(tried) <= state.timeOf(since)
      mergeRefused(state, row, tried, state.bytesOf(tried), isOlderThan)
    },
    giveUp: (row) => giveUpRefused(state, row, "refused")
  })

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
