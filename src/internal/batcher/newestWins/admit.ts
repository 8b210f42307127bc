import { type Report, spansOf } from "../held.ts"
import { merge } from "./fold.ts"
import { type Group, scan } from "./group.ts"
import { giveUpRefused } from "./refused.ts"
import type { State } from "./state.ts"

/** What is held under the key of a record that wants in. */
interface Known {
  readonly bytes: number
  /** Whether a write has it and nothing else waits: one key, which the account counts once more from now on. */
  readonly isInFlightOnly: boolean
}

/**
 * Takes what there is room for of a report, when it is not sure that there is
 * room for all. A known key takes its newer record, unless bytes are short and
 * it is larger.
 */
export const admit = <A>(state: State<A>, report: Report<A>): number => {
  const group = state.groups.getOrAdd(report.group)
  const spans = spansOf(report.span)
  let counted = countedTwice(state)
  let taken = 0
  report.records.forEach((record, likely) => {
    const known = knownOf(state, group, record, likely)
    const hasRoom =
      known === undefined ? makeRoom(state, record, counted) : fitsInstead(state, record, known.bytes)
    if (!hasRoom) return
    if (known?.isInFlightOnly) counted += 1
    taken += 1
    merge(state, group, { record, likely, since: report.at, spans, isLater: true })
  })
  return taken
}

/** Keys that wait while a write has an older record of them: each is one, and the account counts two. */
const countedTwice = <A>(state: State<A>): number => {
  const { account, maxPending } = state.environment
  if (account.pending + account.inFlight + account.refused < maxPending) return 0
  let count = 0
  for (const batch of state.inFlight) {
    batch.records.forEach((record, position) => {
      const group = state.groups.get(batch.groups[position] as string)
      if (group !== undefined && waitingBytes(state, group, record, position) !== undefined) count += 1
    })
  }
  return count
}

const waitingBytes = <A>(state: State<A>, group: Group<A>, record: A, likely: number): number | undefined => {
  const key = state.keyOf(record)
  const refused = group.refused?.get(key)
  if (refused !== undefined) return refused.bytes
  for (const held of [group.resting, group.woken]) {
    const position = held === undefined ? -1 : scan(held.records, key, state.keyOf)
    if (held !== undefined && position !== -1) return state.bytesOf(held.records[position] as A)
  }
  const position = group.positionOf(key, likely, state.keyOf)
  return position === -1 ? undefined : state.bytesOf(group.waiting?.records[position] as A)
}

const knownOf = <A>(state: State<A>, group: Group<A>, record: A, likely: number): Known | undefined => {
  const waiting = waitingBytes(state, group, record, likely)
  if (waiting !== undefined) return { bytes: waiting, isInFlightOnly: false }
  const key = state.keyOf(record)
  for (const batch of state.inFlight) {
    for (const held of batch.held) {
      if (held.group !== group.id) continue
      const position = scan(held.records, key, state.keyOf)
      if (position === -1) continue
      return { bytes: state.bytesOf(held.records[position] as A), isInFlightOnly: true }
    }
  }
  return undefined
}

const fitsInstead = <A>(state: State<A>, record: A, bytesHeld: number): boolean => {
  const { account, maxPendingBytes } = state.environment
  const bytes = state.bytesOf(record)
  return bytes <= bytesHeld || account.bytes + bytes - bytesHeld <= maxPendingBytes
}

/** Room for a key that is not known: refused rows give way, the longest refused first. */
const makeRoom = <A>(state: State<A>, record: A, counted: number): boolean => {
  const { account, maxPending, maxPendingBytes } = state.environment
  const bytes = state.bytesOf(record)
  const hasRoom = () =>
    account.pending + account.inFlight + account.refused - counted < maxPending &&
    account.bytes + bytes <= maxPendingBytes
  while (!hasRoom()) {
    const longest = state.refused.longest()
    if (longest === undefined) return false
    giveUpRefused(state, longest, "evicted")
  }
  return true
}
