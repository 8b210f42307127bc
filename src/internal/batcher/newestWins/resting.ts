import { type Held, joinSpans } from "../held.ts"
import type { Group } from "./group.ts"
import type { State } from "./state.ts"

/** A held of resting or woken records is none any more; whoever calls moves its records in the account. */
export const takeRestingOut = <A>(state: State<A>, group: Group<A>, held: Held<A>): void => {
  if (held === group.resting) {
    state.restingCount -= held.records.length
    state.resting.delete(group)
    group.resting = undefined
  } else if (held === group.woken) {
    state.woken.delete(group)
    group.woken = undefined
  }
}

/**
 * Sets apart those of a group's waiting records that say what was last written,
 * until it is their time. Answers whether any of the others says something new.
 */
export const rest = <A>(state: State<A>, group: Group<A>): boolean => {
  const { elapsed, unchanged } = state.environment
  const { content, key } = state.definition
  const { waiting, written } = group
  if (waiting === undefined || written === undefined || content === undefined) return true
  const before = elapsed() - unchanged
  let isNews = false
  const different: Array<A> = []
  const same: Array<A> = []
  try {
    for (let i = 0; i < waiting.records.length; i++) {
      const record = waiting.records[i] as A
      const name = key(record)
      const at = written.at(name, i)
      const isSame = at !== undefined && written.isSame(name, i, content(record))
      isNews ||= !isSame
      ;(isSame && at > before ? same : different).push(record)
    }
  } catch {
    // A getter threw: what cannot be compared is written.
    return true
  }
  if (same.length === 0) return isNews
  const bytes = different.length === 0 ? waiting.bytes : sumOf(same, state.bytesOf)
  addTo(state, group, "resting", { ...waiting, records: same, own: same, bytes, quiet: true })
  state.restingCount += same.length
  waiting.bytes -= bytes
  waiting.records = different
  waiting.own = different
  if (different.length === 0) group.waiting = undefined
  return isNews
}

const addTo = <A>(state: State<A>, group: Group<A>, place: "resting" | "woken", held: Held<A>): void => {
  const already = group[place]
  state[place].add(group)
  if (already === undefined) {
    group[place] = held
    return
  }
  const records = already.records.concat(held.records)
  group[place] = {
    group: group.id,
    records,
    own: records,
    bytes: already.bytes + held.bytes,
    since: Math.min(already.since, held.since),
    spans: joinSpans(already.spans, held.spans),
    quiet: already.quiet && held.quiet
  }
}

/** Wakes the records whose time has come. It is put off until half an interval has passed since the last time. */
export const wakeDue = <A>(state: State<A>): void => {
  if (state.restingCount === 0) return
  const { elapsed, interval, unchanged } = state.environment
  const at = elapsed()
  if (at < state.wakeAt) return
  state.wakeAt = at + interval / 2
  for (const group of state.resting) wakeGroup(state, group, at - unchanged)
}

/** Wakes those of a group's resting records that were last written at that time or before. */
export const wakeGroup = <A>(state: State<A>, group: Group<A>, writtenBefore: number): void => {
  const { resting, written } = group
  if (resting === undefined) return
  const isDue = (record: A, i: number) =>
    (written?.at(state.keyOf(record), i) ?? Number.NEGATIVE_INFINITY) <= writtenBefore
  const due = resting.records.filter(isDue)
  if (due.length === 0) return
  takeRestingOut(state, group, resting)
  const bytes = due.length === resting.records.length ? resting.bytes : sumOf(due, state.bytesOf)
  addTo(state, group, "woken", { ...resting, records: due, own: due, bytes })
  const left = resting.records.filter((record, i) => !isDue(record, i))
  if (left.length === 0) return
  addTo(state, group, "resting", { ...resting, records: left, own: left, bytes: resting.bytes - bytes })
  state.restingCount += left.length
}

const sumOf = <A>(records: ReadonlyArray<A>, bytesOf: (record: A) => number): number => {
  let bytes = 0
  for (const record of records) bytes += bytesOf(record)
  return bytes
}
