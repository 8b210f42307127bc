import { heldOf } from "../batch.ts"
import type { Held } from "../held.ts"
import type { RefusedRow } from "../refused.ts"
import { merge, replaceWaiting } from "./fold.ts"
import { type Group, scan } from "./group.ts"
import { giveUpRefused } from "./refused.ts"
import type { State } from "./state.ts"

/**
 * Takes what there is room for of a report, when it is not sure that there is
 * room for all. A known key takes its newer record, unless bytes are short and
 * it is larger.
 */
export const admit = <A>(state: State<A>, report: Held<A>): number => {
  const group = state.groups.getOrAdd(report.group)
  if (admitWhole(state, group, report)) return report.records.length
  let taken = 0
  report.records.forEach((record, likely) => {
    const known = bytesKnown(state, group, record, likely)
    const hasRoom = known === undefined ? makeRoom(state, record) : fitsInstead(state, record, known)
    if (!hasRoom) return
    taken += 1
    merge(state, group, { record, likely, since: report.since, spans: report.spans, isLater: true })
  })
  return taken
}

/** A report of keys that wait already, in their order: the common case, however long the store is away. */
const admitWhole = <A>(state: State<A>, group: Group<A>, report: Held<A>): boolean => {
  const { account, maxPendingBytes } = state.environment
  const { waiting } = group
  if (waiting === undefined || group.refused !== undefined) return false
  if (group.resting !== undefined || group.woken !== undefined) return false
  const isNoLarger = report.bytes <= waiting.bytes
  if (!isNoLarger && account.bytes + report.bytes - waiting.bytes > maxPendingBytes) return false
  account.bytes += report.bytes
  try {
    if (replaceWaiting(state, group, report)) return true
  } catch {
    // A getter may throw: record by record it costs only its own.
  }
  account.bytes -= report.bytes
  return false
}

/** The bytes of what is held under the key of this record, in a write as well. */
const bytesKnown = <A>(state: State<A>, group: Group<A>, record: A, likely: number): number | undefined => {
  const key = state.keyOf(record)
  const refused = group.refused?.get(key)
  if (refused !== undefined) return refused.bytes
  const position = group.positionOf(key, likely, state.keyOf)
  if (position !== -1) return state.bytesOf(group.waiting?.records[position] as A)
  const elsewhere = Array.from(state.inFlight, (batch) => heldOf(batch, group.id)).flat()
  for (const held of [group.resting, group.woken, ...elsewhere]) {
    const found = held === undefined ? -1 : scan(held.records, key, state.keyOf)
    if (held !== undefined && found !== -1) return state.bytesOf(held.records[found] as A)
  }
  return undefined
}

const fitsInstead = <A>(state: State<A>, record: A, bytesHeld: number): boolean => {
  const { account, maxPendingBytes } = state.environment
  const bytes = state.bytesOf(record)
  return bytes <= bytesHeld || account.bytes + bytes - bytesHeld <= maxPendingBytes
}

/** Room for a key that is not known: refused rows give way, the longest refused first, if that is enough. */
const makeRoom = <A>(state: State<A>, record: A): boolean => {
  const { account, maxPending, maxPendingBytes } = state.environment
  if (account.pending >= maxPending) return false
  let rows = account.pending + account.refused
  let bytes = account.bytes + state.bytesOf(record)
  const isShort = () => rows >= maxPending || bytes > maxPendingBytes
  const leaving: Array<RefusedRow<A>> = []
  for (const row of state.refused.values()) {
    if (!isShort()) break
    if (row.isTried) continue
    leaving.push(row)
    rows -= 1
    bytes -= row.bytes
  }
  if (isShort()) return false
  for (const row of leaving) giveUpRefused(state, row, "evicted")
  return true
}
