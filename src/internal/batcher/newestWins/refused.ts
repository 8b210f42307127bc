import type { Batch, Outcome } from "../batch.ts"
import type { Discarded } from "../models.ts"
import { maxRefusedMillis, type RefusedRow } from "../refused.ts"
import { merge } from "./fold.ts"
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
    if (!stays || batch.forgotten.has(row.held.group)) {
      release(state, row)
      if (stays) account.discarded += 1
      return
    }
    row.why = whys.get(position) ?? row.why
    if (whys.has(position)) state.refused.postpone(row, elapsed())
    takeBack(state, row, batch.records[position] as A)
    if (elapsed() - row.refusedAt > maxRefusedMillis) giveUpRefused(state, row, "refused")
  })
  if (whys.size + unwritten.size === 0) state.refused.widen(elapsed())
}

/** What was tried waits again, unless something newer has come for its key. */
const takeBack = <A>(state: State<A>, row: RefusedRow<A>, tried: A): void => {
  const { account } = state.environment
  if (row.record === undefined) {
    account.refused += 1
  } else {
    account.superseded += 1
    if (state.timeOf(row.record) >= state.timeOf(tried)) return
    account.bytes -= row.bytes
  }
  row.record = tried
  row.bytes = state.bytesOf(tried)
  account.bytes += row.bytes
}

/** Ends the time apart of a key: what came meanwhile waits as any other. */
export const release = <A>(state: State<A>, row: RefusedRow<A>): void => {
  const { account } = state.environment
  const { record } = row
  const { since, spans } = row.held
  const group = state.groups.getOrAdd(row.held.group)
  remove(state, row)
  if (record === undefined) return
  account.refused -= 1
  account.bytes -= row.bytes
  merge(state, group, { record, likely: 0, since, spans, isLater: true })
}

/** Gives up what waits of a refused row. */
export const giveUpRefused = <A>(
  state: State<A>,
  row: RefusedRow<A>,
  reason: Discarded<A>["reason"] | "forgotten"
): void => {
  const { account } = state.environment
  if (row.record === undefined) return
  remove(state, row)
  account.refused -= 1
  account.discarded += 1
  account.bytes -= row.bytes
  if (reason !== "forgotten") state.tell(row.held.group, row.record, reason, row.why)
}

const remove = <A>(state: State<A>, row: RefusedRow<A>): void => {
  const group = state.groups.getOrAdd(row.held.group)
  state.refused.delete(row)
  group.refused?.delete(row.key)
  if (group.refused?.size === 0) group.refused = undefined
}
