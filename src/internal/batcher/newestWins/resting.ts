import { type Held, joinSpans, unknownKeys } from "../held.ts"
import type { Group } from "./group.ts"
import type { State } from "./state.ts"

/** A held of resting or woken records is none any more; whoever calls moves its records in the account. */
export const takeRestingOut = <A>(state: State<A>, group: Group<A>, held: Held<A>): void => {
  if (held === group.resting) {
    state.restingCount -= held.records.length
    state.resting.delete(group)
    group.resting = undefined
    group.restsSince = Number.POSITIVE_INFINITY
  } else if (held === group.woken) {
    state.woken.delete(group)
    group.woken = undefined
  }
}

/** Compares what has begun to wait with what was last written. */
export const sift = <A>(state: State<A>): void => {
  if (state.toSift.length === 0) return
  const { elapsed, unchanged } = state.environment
  const before = elapsed() - unchanged
  const groups = state.toSift
  state.toSift = []
  for (const group of groups) {
    group.isToSift = false
    // What is being written is about to be what was last written: once it is, these are looked at again.
    if (group.writing === 0) siftGroup(state, group, before)
  }
}

/**
 * Sets apart those of a group's waiting records that say what was last written:
 * until it is their time, or, if that has come, to be written without a word to
 * anybody.
 */
const siftGroup = <A>(state: State<A>, group: Group<A>, before: number): void => {
  const { content, key } = state.definition
  const { waiting, written } = group
  if (waiting === undefined || written === undefined || content === undefined) return
  const news: Array<A> = []
  const early: Array<A> = []
  const due: Array<A> = []
  let since = group.restsSince
  try {
    for (let i = 0; i < waiting.records.length; i++) {
      const record = waiting.records[i] as A
      const at = written.atIfSame(key(record), content(record))
      if (at === undefined) news.push(record)
      else if (at <= before) due.push(record)
      else {
        early.push(record)
        since = Math.min(since, at)
      }
    }
  } catch {
    // A getter threw: what cannot be compared is written.
    return
  }
  if (news.length === waiting.records.length) return
  state.restingCount += early.length
  group.restsSince = since
  for (const [place, records] of [
    ["resting", early],
    ["woken", due]
  ] as const) {
    if (records.length === 0) continue
    const bytes = records.length === waiting.records.length ? waiting.bytes : sumOf(records, state.bytesOf)
    addTo(state, group, place, { ...waiting, records, own: records, bytes, keys: undefined, quiet: true })
  }
  if (news.length === 0) {
    group.waiting = undefined
    return
  }
  waiting.records = news
  waiting.own = news
  waiting.keys = undefined
  waiting.bytes = sumOf(news, state.bytesOf)
}

/**
 * Of a report that lists every key that rests, in their order: what says the
 * same takes the place of what rests. Gives back the rest of it, or undefined if
 * it is no such report.
 *
 * What rests is known to say what was last written, so that two texts are
 * compared and nothing is hashed.
 */
export const replaceResting = <A>(state: State<A>, group: Group<A>, report: Held<A>): Held<A> | undefined => {
  const { account } = state.environment
  const { resting } = group
  if (resting === undefined) return undefined
  const differs = findDifferent(state, resting.records, report.records)
  if (differs === undefined) return undefined
  if (differs.length > 0 && !state.haveDistinctKeys(report)) return undefined
  account.unchanged += resting.records.length
  account.pending -= resting.records.length
  account.bytes -= resting.bytes
  state.restingCount -= resting.records.length

  const same = differs.length === 0 ? report.records : report.records.filter((_, i) => !differs.includes(i))
  const records = differs.map((i) => report.records[i] as A)
  const bytes = sumOf(records, state.bytesOf)
  state.restingCount += same.length
  account.pending += same.length
  resting.records = same
  resting.own = undefined
  resting.bytes = report.bytes - bytes
  resting.since = report.since
  resting.spans = report.spans
  if (same.length === 0) takeRestingOut(state, group, resting)
  return { ...report, records, bytes, keys: undefined }
}

/** Where a report says something else than what rests; undefined if one that rests is missing or newer. */
const findDifferent = <A>(
  state: State<A>,
  resting: ReadonlyArray<A>,
  records: ReadonlyArray<A>
): ReadonlyArray<number> | undefined => {
  const { content, key, time } = state.definition
  if (content === undefined) return undefined
  let differs: Array<number> | undefined
  let position = 0
  for (let i = 0; i < records.length; i++) {
    const record = records[i] as A
    if (position < resting.length) {
      const before = resting[position] as A
      if (key(before) === key(record)) {
        if (!(time(record) >= time(before))) return undefined
        position += 1
        if (isEqual(content(before), content(record))) continue
      }
    }
    differs ??= []
    differs.push(i)
  }
  return position === resting.length ? (differs ?? none) : undefined
}

const none: ReadonlyArray<never> = []

const isEqual = (a: ReadonlyArray<string>, b: ReadonlyArray<string>): boolean => {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
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
    ...unknownKeys,
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
  for (const group of state.resting) {
    if (group.restsSince <= at - unchanged) wakeGroup(state, group, at - unchanged)
  }
}

/** Wakes those of a group's resting records that were last written at that time or before. */
const wakeGroup = <A>(state: State<A>, group: Group<A>, writtenBefore: number): void => {
  const { resting, written } = group
  if (resting === undefined) return
  const due: Array<A> = []
  const left: Array<A> = []
  let since = Number.POSITIVE_INFINITY
  for (const record of resting.records) {
    const at = written?.at(state.keyOf(record)) ?? Number.NEGATIVE_INFINITY
    if (at <= writtenBefore) due.push(record)
    else {
      left.push(record)
      since = Math.min(since, at)
    }
  }
  takeRestingOut(state, group, resting)
  group.restsSince = since
  const bytes = due.length === resting.records.length ? resting.bytes : sumOf(due, state.bytesOf)
  if (due.length > 0) addTo(state, group, "woken", { ...resting, records: due, own: due, bytes })
  if (left.length === 0) return
  addTo(state, group, "resting", { ...resting, records: left, own: left, bytes: resting.bytes - bytes })
  state.restingCount += left.length
}

const sumOf = <A>(records: ReadonlyArray<A>, bytesOf: (record: A) => number): number => {
  let bytes = 0
  for (const record of records) bytes += bytesOf(record)
  return bytes
}
