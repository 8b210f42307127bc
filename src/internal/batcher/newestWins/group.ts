import type { Held } from "../held.ts"
import type { RefusedRow } from "../refused.ts"
import type { Remembered } from "./remembered.ts"

/** Up to this many records, looking at each is faster than hashing the key. */
const maxScanned = 16

/** Everything that is known of one group: its entry in the `HashMap`. */
export class Group<A> {
  // What each report touches stands first, so that it takes two lines of the processor's cache and not three.
  readonly id: string
  /** What the next batch takes. */
  waiting: Held<A> | undefined = undefined
  /** Refused rows by key. */
  refused: Map<string, RefusedRow<A>> | undefined = undefined
  /** Records that say what was last written, and wait for their time (option `unchanged`). */
  resting: Held<A> | undefined = undefined
  /** Those of them whose time has come. */
  woken: Held<A> | undefined = undefined
  /** What was last written. */
  written: Remembered | undefined = undefined
  /** Whether it stands in the order in which groups are taken. */
  isOrdered = false
  /** The one behind it in that order. */
  next: Group<A> | undefined = undefined
  /** How many of its records go before those of the groups behind it; what comes later waits for its next turn. */
  due = 0
  /** None of those that rest was last written before. */
  restsSince = Number.POSITIVE_INFINITY
  /** Whether it stands among those whose waiting records are to be compared with what was written. */
  isToSift = false
  /** How many writes under way hold records of it; counted with the option `unchanged` only. */
  writing = 0
  private index: Map<string, number> | undefined = undefined
  private indexed: ReadonlyArray<A> | undefined = undefined

  constructor(id: string) {
    this.id = id
  }

  get isIdle(): boolean {
    return (
      !this.isOrdered &&
      this.writing === 0 &&
      this.waiting === undefined &&
      this.resting === undefined &&
      this.woken === undefined &&
      this.refused === undefined &&
      this.written === undefined
    )
  }

  /** Where the waiting record of a key stands, or -1; it is looked for at `likely` first. */
  positionOf(key: string, likely: number, keyOf: (record: A) => string): number {
    const records = this.waiting?.records
    if (records === undefined) return -1
    if (likely < records.length && keyOf(records[likely] as A) === key) return likely
    if (records.length > maxScanned) return this.indexOf(records, keyOf).get(key) ?? -1
    return scan(records, key, keyOf)
  }

  /** A record has been taken out of the middle, or all of them. */
  forgetIndex(): void {
    this.index = undefined
    this.indexed = undefined
  }

  private indexOf(records: ReadonlyArray<A>, keyOf: (record: A) => string): Map<string, number> {
    if (this.index === undefined || this.indexed !== records) {
      this.indexed = records
      this.index = new Map()
    }
    // Records are only ever added at the end of an array, or replaced by one of the same key.
    for (let i = this.index.size; i < records.length; i++) this.index.set(keyOf(records[i] as A), i)
    return this.index
  }
}

/** Where the record of a key stands, or -1. */
export const scan = <A>(records: ReadonlyArray<A>, key: string, keyOf: (record: A) => string): number => {
  for (let i = 0; i < records.length; i++) if (keyOf(records[i] as A) === key) return i
  return -1
}
