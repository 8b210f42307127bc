import { type Batch, eachHeld, notWritten, type Outcome } from "../batch.ts"
import { type Held, ownRecords } from "../held.ts"
import { countSettled, eachRefused } from "../settling.ts"
import { merge } from "./fold.ts"
import type { Group } from "./group.ts"
import { settleRetried } from "./refused.ts"
import { Remembered } from "./remembered.ts"
import type { State } from "./state.ts"

/** Moves the rows of a batch to where the store's answer puts them. */
export const settle = <A>(state: State<A>, batch: Batch<A>, outcome: Outcome): void => {
  // After the batcher has given up, nobody counts any more.
  if (!state.inFlight.delete(batch)) return
  countSettled(state.environment, batch, outcome)
  if (state.environment.unchanged > 0) rememberWritten(state, batch, outcome)
  if (batch.retried !== undefined) {
    settleRetried(state, batch, outcome)
    return
  }
  eachRefused(batch, outcome, (record, held, why) => setApart(state, batch, record, held, why))
  restore(state, batch, outcome.unwritten)
}

/** What was not written waits again, unless something newer has come. */
const restore = <A>(state: State<A>, batch: Batch<A>, positions: ReadonlyArray<number>): void => {
  eachHeld(batch, positions, (likely, record, { group, since, spans }) => {
    if (batch.forgotten.has(group)) state.environment.account.discarded += 1
    else merge(state, state.groups.getOrAdd(group), { record, likely, since, spans, isLater: false })
  })
}

/** A row that the store refused waits apart from now on. */
const setApart = <A>(state: State<A>, batch: Batch<A>, record: A, held: Held<A>, why: string): void => {
  const { account, elapsed } = state.environment
  if (batch.forgotten.has(held.group)) {
    account.discarded += 1
    return
  }
  const group = state.groups.getOrAdd(held.group)
  const key = state.keyOf(record)
  const known = group.refused?.get(key)
  if (known !== undefined) {
    known.why = why
    merge(state, group, { record, likely: 0, since: held.since, spans: held.spans, isLater: false })
    return
  }
  const bytes = state.bytesOf(record)
  group.refused ??= new Map()
  group.refused.set(key, state.refused.add(held, { key, why, record, bytes }, elapsed()))
  account.refused += 1
  account.bytes += bytes
  moveWaiting(state, group, key)
}

/** What came for the key while it was being refused waits with it. */
const moveWaiting = <A>(state: State<A>, group: Group<A>, key: string): void => {
  const { account } = state.environment
  const { waiting } = group
  const position = group.positionOf(key, 0, state.keyOf)
  if (waiting === undefined || position === -1) return
  const [record] = ownRecords(waiting).splice(position, 1)
  group.forgetIndex()
  const bytes = state.bytesOf(record as A)
  waiting.bytes -= bytes
  account.bytes -= bytes
  account.pending -= 1
  if (waiting.records.length === 0) group.waiting = undefined
  const { since, spans } = waiting
  merge(state, group, { record: record as A, likely: 0, since, spans, isLater: true })
}

/** Remembers what the store holds now; what it may or may not hold is forgotten. */
const rememberWritten = <A>(state: State<A>, batch: Batch<A>, outcome: Outcome): void => {
  const { elapsed, maxPending, now, unchanged } = state.environment
  const at = { elapsed: elapsed(), wallClock: now() }
  const elsewhere = new Set(notWritten(outcome))
  if (state.rememberedCount + batch.records.length > maxPending) forgetExpired(state, at.elapsed - unchanged)
  let position = 0
  for (const held of batch.held) {
    const group = state.groups.getOrAdd(held.group)
    group.writing -= 1
    group.written ??= new Remembered()
    for (const record of held.records) {
      const isKnown = !batch.forgotten.has(group.id) && !batch.overtaken.has(group.id)
      const isHeldByStore = !elsewhere.has(position++) && isKnown
      if (isHeldByStore && remember(state, group.written, record, at)) continue
      if (group.written.delete(state.keyOf(record))) state.rememberedCount -= 1
    }
    if (group.written.size === 0) group.written = undefined
    else if (group.waiting !== undefined) state.noteWaiting(group)
  }
}

/** Remembers one record, unless there is no room for its key; answers whether it can be compared at all. */
const remember = <A>(
  state: State<A>,
  written: Remembered,
  record: A,
  at: { readonly elapsed: number; readonly wallClock: number }
): boolean => {
  const { content, key, time } = state.definition
  const { interval, maxPending } = state.environment
  try {
    // What the table says is as old as the record, which waited for an interval at most.
    const age = Math.min(interval, Math.max(0, at.wallClock - time(record)))
    const hasRoom = state.rememberedCount < maxPending
    if (content !== undefined && written.set(key(record), content(record), at.elapsed - age, hasRoom)) {
      state.rememberedCount += 1
    }
    return true
  } catch {
    // A getter threw: what cannot be compared is not remembered.
    return false
  }
}

/** What has not been written for so long does not hold back anything any more. */
const forgetExpired = <A>(state: State<A>, before: number): void => {
  for (const group of state.groups.values()) {
    if (group.written === undefined) continue
    state.rememberedCount -= group.written.deleteBefore(before)
    if (group.written.size === 0) group.written = undefined
  }
}
