import { type Held, joinSpans, ownRecords } from "../held.ts"
import type { RefusedRow } from "../refused.ts"
import type { Group } from "./group.ts"
import { scan } from "./group.ts"
import { replaceResting, takeRestingOut } from "./resting.ts"
import type { State } from "./state.ts"

/**
 * Takes a report from the queue.
 *
 * One that lists the same keys in the same order as the one that waits, none of
 * them older, replaces it as a whole: nothing is allocated, and mostly no record
 * is looked at. Only where keys differ are they merged one by one.
 */
export const fold = <A>(state: State<A>, report: Held<A>): void => {
  const { account } = state.environment
  account.queued -= report.records.length
  const group = state.groups.getOrAdd(report.group)
  if (group.refused === undefined && foldWhole(state, group, report)) return
  foldEach(state, group, report)
}

const foldWhole = <A>(state: State<A>, group: Group<A>, report: Held<A>): boolean => {
  try {
    if (group.woken !== undefined) return false
    if (group.resting !== undefined) return foldOntoResting(state, group, report)
    return foldOntoWaiting(state, group, report)
  } catch {
    // A getter may throw: record by record it costs only its own.
    return false
  }
}

const foldOntoWaiting = <A>(state: State<A>, group: Group<A>, report: Held<A>): boolean => {
  if (group.waiting !== undefined) return replaceWaiting(state, group, report)
  if (!state.haveDistinctKeys(report)) return false
  begin(state, group, report)
  return true
}

/** What says the same as the record that rests takes its place; only the others wait to be written. */
const foldOntoResting = <A>(state: State<A>, group: Group<A>, report: Held<A>): boolean => {
  const others = replaceResting(state, group, report)
  if (others === undefined) return false
  if (others.records.length > 0 && !foldOntoWaiting(state, group, others)) foldEach(state, group, others)
  return true
}

const foldEach = <A>(state: State<A>, group: Group<A>, report: Held<A>): void => {
  state.environment.account.bytes -= report.bytes
  const { records, since, spans } = report
  for (let i = 0; i < records.length; i++) {
    merge(state, group, { record: records[i] as A, likely: i, since, spans, isLater: true })
  }
}

const begin = <A>(state: State<A>, group: Group<A>, report: Held<A>): void => {
  group.waiting = report
  state.groups.enqueue(group)
  state.environment.account.pending += report.records.length
  state.noteWaiting(group)
}

/** A report of the same keys in the same order, none of them older, takes the place of the one that waits. */
export const replaceWaiting = <A>(state: State<A>, group: Group<A>, report: Held<A>): boolean => {
  const { account } = state.environment
  const { records } = report
  const { waiting } = group
  if (waiting === undefined || !areNewer(state, waiting, report)) return false
  account.superseded += records.length
  account.bytes -= waiting.bytes
  waiting.records = records
  waiting.own = undefined
  waiting.bytes = report.bytes
  waiting.spans = report.spans
  waiting.keys = report.keys
  waiting.oldest = report.oldest
  waiting.newest = report.newest
  state.noteWaiting(group)
  return true
}

/** Whether each record has the key of the one at its position, and is not older. */
const areNewer = <A>(state: State<A>, waiting: Held<A>, report: Held<A>): boolean => {
  const areKeysKnown = report.keys !== undefined && report.keys === waiting.keys
  if (areKeysKnown && report.oldest >= waiting.newest) return true
  const { key, time } = state.definition
  const { records: older } = waiting
  const { records: newer } = report
  if (older.length !== newer.length) return false
  for (let i = 0; i < newer.length; i++) {
    const [before, after] = [older[i] as A, newer[i] as A]
    if (key(before) !== key(after) || !(time(after) >= time(before))) return false
  }
  return true
}

/** One record on its way to where it waits. */
export interface Incoming<A> {
  readonly record: A
  /** Where in its report it stands, which is likely where its key waits. */
  readonly likely: number
  readonly since: number
  readonly spans: Held<A>["spans"]
  /** Of equal times the later add wins: whether that is this one. */
  readonly isLater: boolean
}

/** Puts one record where its key waits, or beside the others. Its bytes are counted here. */
export const merge = <A>(state: State<A>, group: Group<A>, incoming: Incoming<A>): void => {
  const { account } = state.environment
  const { isLater, likely, record, since, spans } = incoming
  let key: string
  let time: number
  let bytes: number
  try {
    key = String(state.definition.key(record))
    time = state.definition.time(record)
    bytes = state.definition.bytes(record)
    // A getter may say something else than when the record was taken, and NaN would spread through the account.
    if (Number.isNaN(bytes)) throw new TypeError("no such record")
  } catch {
    account.discarded += 1
    return
  }
  const isOlderThan = (held: A) => (isLater ? time < state.timeOf(held) : time <= state.timeOf(held))

  const refused = group.refused?.get(key)
  if (refused !== undefined) {
    mergeRefused(state, refused, record, bytes, isOlderThan)
    return
  }
  for (const held of [group.resting, group.woken]) {
    if (held === undefined) continue
    const position = scan(held.records, key, state.keyOf)
    if (position === -1) continue
    if (isOlderThan(held.records[position] as A)) {
      account.superseded += 1
      return
    }
    const [rested] = ownRecords(held).splice(position, 1)
    const bytesRested = state.bytesOf(rested as A)
    held.bytes -= bytesRested
    account.bytes -= bytesRested
    account.pending -= 1
    account.unchanged += 1
    if (held === group.resting) state.restingCount -= 1
    if (held.records.length === 0) takeRestingOut(state, group, held)
  }

  const waiting = state.waitingOf(group, since)
  const position = group.positionOf(key, likely, state.keyOf)
  if (position === -1) {
    ownRecords(waiting).push(record)
    account.pending += 1
  } else {
    account.superseded += 1
    const before = waiting.records[position] as A
    if (isOlderThan(before)) return
    ownRecords(waiting)[position] = record
    const bytesBefore = state.bytesOf(before)
    waiting.bytes -= bytesBefore
    account.bytes -= bytesBefore
  }
  waiting.bytes += bytes
  account.bytes += bytes
  waiting.since = Math.min(waiting.since, since)
  waiting.spans = joinSpans(waiting.spans, spans)
  state.noteWaiting(group)
}

/** The newest record of a refused key waits in its place; while the refused one is being tried, beside it. */
export const mergeRefused = <A>(
  state: State<A>,
  row: RefusedRow<A>,
  record: A,
  bytes: number,
  isOlderThan: (held: A) => boolean
): void => {
  const { account } = state.environment
  if (row.record === undefined) {
    account.refused += 1
  } else {
    account.superseded += 1
    if (isOlderThan(row.record)) return
    account.bytes -= row.bytes
  }
  account.bytes += bytes
  row.record = record
  row.bytes = bytes
}
