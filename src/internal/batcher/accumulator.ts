import type { Account } from "./account.ts"
import type { Batch, Outcome } from "./batch.ts"
import type { Held } from "./held.ts"
import type { Discarded } from "./models.ts"

/**
 * How records wait between two writes.
 *
 * Each operation is one synchronous step that also moves its records in the
 * account, so that no record is ever between two places.
 */
export interface Accumulator<in out A> {
  /** The keys of most reports, no key twice: always the same array while they are the same. */
  readonly commonKeys: () => ReadonlyArray<string>
  /** Takes a report from the queue. There is room for it: whoever queued it has seen to that. */
  readonly fold: (report: Held<A>) => void
  /** Takes what there is room for of a report that is not queued, and says how many records that was. */
  readonly admit: (report: Held<A>) => number
  /** Rows that a batch could take now. */
  readonly ready: () => number
  /** Moves at most `max` rows into a batch, the longest waiting groups first. */
  readonly take: (max: number) => Batch<A> | undefined
  /** The same of refused rows whose pause is over. */
  readonly takeRefused: (max: number) => Batch<A> | undefined
  /** Whether a refused row is due to be tried again. */
  readonly hasRefusedDue: () => boolean
  /** Moves the rows of a batch to where the store's answer puts them. */
  readonly settle: (batch: Batch<A>, outcome: Outcome) => void
  /** Gives up what waits of a group. */
  readonly forget: (group: string) => void
  /** Others have written rows of this group: what was last written is not known any more. */
  readonly forgetWritten: (group: string | undefined) => void
  /** Gives up everything: the batcher has closed. */
  readonly giveUp: () => void
  /** When the longest waiting row was added, those in a write among them. */
  readonly oldest: () => number | undefined
}

/** What an accumulator is made with. */
export interface Environment<A> {
  readonly account: Account
  readonly maxPending: number
  readonly maxPendingBytes: number
  /** Milliseconds between scheduled flushes. */
  readonly interval: number
  /** Milliseconds; 0 turns it off. */
  readonly unchanged: number
  /** Whether anybody wants to be given what is given up. */
  readonly discards: boolean
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Milliseconds since whatever moment: unlike `now` it is never set back. */
  readonly elapsed: () => number
  readonly discard: (discarded: Discarded<A>) => void
}

/**
 * How the records of a batcher wait, as `newestWins` or `appendOnly` make it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Accumulate<in out A> {
  /** What belongs together: a device, an agent. Its records are announced and forgotten together. */
  readonly group: (record: A) => string
  /** What tells a record from the others of its group, for logs: never its value. */
  readonly key: (record: A) => string
  /** When it was collected, in milliseconds since the epoch, if that matters. */
  readonly time: ((record: A) => number) | undefined
  /** The same record with another time. */
  readonly withTime: ((record: A, time: number) => A) | undefined
  /** How many bytes it takes while it waits; `NaN` for what is no such record. */
  readonly bytes: (record: A) => number
  /** Whether `unchanged` can be told. */
  readonly content: ((record: A) => ReadonlyArray<string>) | undefined
  /** @internal */
  readonly make: (environment: Environment<A>) => Accumulator<A>
}

/** A guess for records whose definition does not say: two bytes per character of the texts in it, eight for all else. */
export const estimateBytes = (record: unknown): number => {
  if (typeof record === "string") return 2 * record.length
  if (typeof record !== "object" || record === null) return 8
  let bytes = 16
  for (const value of Object.values(record)) bytes += typeof value === "string" ? 2 * value.length : 8
  return bytes
}
