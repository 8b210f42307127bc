import { type Held, unknownKeys } from "./held.ts"
import type { Flushed } from "./models.ts"
import type { RefusedRow } from "./refused.ts"
import type { Refusal } from "./writeResult.ts"

/** The rows of one write, with the held that they were taken from. */
export interface Batch<A> {
  readonly held: ReadonlyArray<Held<A>>
  /** Every record, in the order of `held`; a position in a result is an index of these. */
  readonly records: ReadonlyArray<A>
  /** The group of each record. */
  readonly groups: ReadonlyArray<string>
  readonly bytes: number
  /** Whether no group stands in it twice. */
  readonly areGroupsDistinct: boolean
  /** Of a batch of refused rows that are tried again: the row of each position. */
  readonly retried: ReadonlyArray<RefusedRow<A>> | undefined
  /** Groups that were forgotten meanwhile: what is not written of them is given up. */
  readonly forgotten: Set<string>
  /** Groups of which others have written rows meanwhile: nobody knows what the store holds of them in the end. */
  readonly overtaken: Set<string>
}

/** What the store has said of a batch, by positions. What no list names was written. */
export interface Outcome {
  readonly superseded: ReadonlyArray<number>
  readonly missing: ReadonlyArray<number>
  /** Given up, since their write failed and `onWriteFailure` is `"discard"`. */
  readonly failed: ReadonlyArray<number>
  readonly refused: ReadonlyArray<Refusal>
  /** Not written, for no fault of theirs that is known. */
  readonly unwritten: ReadonlyArray<number>
  /** Why the search for what can be written ended early: the store does not take writes. */
  readonly failure: Error | undefined
}

const none: ReadonlyArray<never> = []

export const allWritten: Outcome = {
  superseded: none,
  missing: none,
  failed: none,
  refused: none,
  unwritten: none,
  failure: undefined
}

/** Nothing of the batch was written. */
export const nothingWritten = (size: number, failure: Error): Outcome => ({
  ...allWritten,
  unwritten: Array.from({ length: size }, (_, position) => position),
  failure
})

export const makeBatch = <A>(
  held: ReadonlyArray<Held<A>>,
  size: number,
  { areGroupsDistinct = false, retried }: Partial<Pick<Batch<A>, "areGroupsDistinct" | "retried">> = {}
): Batch<A> => {
  const records = new Array<A>(size)
  const groups = new Array<string>(size)
  let bytes = 0
  let position = 0
  for (const one of held) {
    bytes += one.bytes
    for (let i = 0; i < one.records.length; i++) {
      records[position] = one.records[i] as A
      groups[position++] = one.group
    }
  }
  return {
    held,
    records,
    groups,
    bytes,
    areGroupsDistinct,
    retried,
    forgotten: new Set(),
    overtaken: new Set()
  }
}

/** A batch that tries these rows again. */
export const retryBatch = <A>(rows: ReadonlyArray<RefusedRow<A>>): Batch<A> =>
  makeBatch(
    rows.map((row) => {
      const records = [row.record as A]
      return { ...row.origin, records, own: records, bytes: row.bytes, ...unknownKeys, quiet: false }
    }),
    rows.length,
    { retried: rows }
  )

const byGroup = new WeakMap<object, ReadonlyMap<string, ReadonlyArray<Held<unknown>>>>()

/** What a batch holds of a group. */
export const heldOf = <A>(batch: Batch<A>, group: string): ReadonlyArray<Held<A>> => {
  let index = byGroup.get(batch)
  if (index === undefined) {
    index = Map.groupBy(batch.held, (held) => held.group)
    byGroup.set(batch, index)
  }
  return (index.get(group) ?? none) as ReadonlyArray<Held<A>>
}

/** The held of each of these positions, which ascend. */
export const eachHeld = <A>(
  batch: Batch<A>,
  positions: ReadonlyArray<number>,
  visit: (position: number, record: A, held: Held<A>) => void
): void => {
  let index = 0
  let end = batch.held[0]?.records.length ?? 0
  for (const position of positions) {
    while (position >= end && index < batch.held.length - 1) {
      index += 1
      end += (batch.held[index] as Held<A>).records.length
    }
    visit(position, batch.records[position] as A, batch.held[index] as Held<A>)
  }
}

/** Positions of rows that were not written, for whatever reason. */
export const notWritten = (outcome: Outcome): ReadonlyArray<number> => {
  const { failed, missing, refused, superseded, unwritten } = outcome
  const count = failed.length + missing.length + refused.length + superseded.length + unwritten.length
  if (count === 0) return none
  return [...superseded, ...missing, ...failed, ...refused.map(({ position }) => position), ...unwritten]
}

/** What became of the rows of a batch, as numbers. */
export const tallyOf = <A>(batch: Batch<A>, outcome: Outcome): Flushed => ({
  written: batch.records.length - notWritten(outcome).length,
  superseded: outcome.superseded.length,
  unchanged: 0,
  refused: outcome.refused.length,
  discarded: outcome.missing.length + outcome.failed.length,
  unwritten: outcome.unwritten.length
})

/** What was written of a batch, by group: the one at a position wrote as many rows as `counts` says there. */
export interface WrittenGroups {
  readonly groups: ReadonlyArray<string>
  readonly counts: ReadonlyArray<number>
  /** Those of which others have to be told: something was written that was not known before. */
  readonly news: ReadonlyArray<string>
}

export const writtenGroups = <A>(batch: Batch<A>, outcome: Outcome): WrittenGroups => {
  const elsewhere = notWritten(outcome)
  const isAllNews = batch.held.every(({ quiet }) => !quiet)
  if (elsewhere.length > 0 || !batch.areGroupsDistinct || !isAllNews) return countGroups(batch, elsewhere)
  const groups = batch.held.map(({ group }) => group)
  return { groups, counts: batch.held.map(({ records }) => records.length), news: groups }
}

const countGroups = <A>(batch: Batch<A>, elsewhere: ReadonlyArray<number>): WrittenGroups => {
  const counts = new Map<string, number>()
  const told = new Set<string>()
  const passedOver = new Set(elsewhere)
  let position = 0
  for (const { group, quiet, records } of batch.held) {
    for (let i = 0; i < records.length; i++) {
      if (passedOver.has(position++)) continue
      counts.set(group, (counts.get(group) ?? 0) + 1)
      if (!quiet || batch.overtaken.has(group)) told.add(group)
    }
  }
  return { groups: Array.from(counts.keys()), counts: Array.from(counts.values()), news: Array.from(told) }
}
