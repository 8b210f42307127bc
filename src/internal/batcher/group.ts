import type { Held } from "./held.ts"
import type { RefusedRow } from "./refused.ts"
import type { Remembered } from "./unchanged.ts"

/** Up to this many records, looking at each is faster than hashing the key. */
const maxScanned = 16

/** A record that waits because it says what was last written (option `unchanged`). */
export interface Resting<A> {
  readonly group: Group<A>
  readonly key: string
  readonly record: A
  readonly bytes: number
  readonly since: number
  readonly dueAt: number
}

/** Everything that is known of one group: its entry in the `HashMap`. */
export class Group<A> {
  readonly id: string
  /** What the next batch takes. */
  waiting: Held<A> | undefined = undefined
  /** Refused rows by key. */
  refused: Map<string, RefusedRow<A>> | undefined = undefined
  resting: Map<string, Resting<A>> | undefined = undefined
  written: Map<string, Remembered> | undefined = undefined
  /** Whether it stands in the order in which groups are taken. */
  isOrdered = false
  /** How many of its records go before those of the groups behind it; what comes later waits for its next turn. */
  due = 0
  private index: Map<string, number> | undefined = undefined
  private indexed: ReadonlyArray<A> | undefined = undefined

  constructor(id: string) {
    this.id = id
  }

  get isIdle(): boolean {
    return (
      !this.isOrdered &&
      this.waiting === undefined &&
      this.refused === undefined &&
      this.resting === undefined &&
      this.written === undefined
    )
  }

  /** Where the waiting record of a key stands; it is looked for at `likely` first. */
  positionOf(key: string, likely: number, keyOf: (record: A) => string): number {
    const records = this.waiting?.records
    if (records === undefined) return -1
    if (likely < records.length && keyOf(records[likely] as A) === key) return likely
    if (records.length > maxScanned) return this.indexOf(records, keyOf).get(key) ?? -1
    for (let i = 0; i < records.length; i++) if (keyOf(records[i] as A) === key) return i
    return -1
  }

  /** A record has been taken out of the middle. */
  forgetIndex(): void {
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
