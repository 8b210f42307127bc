import type { Environment } from "../accumulator.ts"
import type { Batch } from "../batch.ts"
import { type Held, unknownKeys } from "../held.ts"
import type { Discarded } from "../models.ts"
import { RefusedRows } from "../refused.ts"
import type { Group } from "./group.ts"
import { Groups } from "./groups.ts"

/** What a definition says of its records. */
export interface NewestWins<in out A> {
  readonly key: (record: A) => string
  readonly time: (record: A) => number
  readonly bytes: (record: A) => number
  readonly content: ((record: A) => ReadonlyArray<string>) | undefined
}

/** All that waits, and what the definition and the options say of it. */
export class State<A> {
  readonly definition: NewestWins<A>
  readonly environment: Environment<A>
  readonly groups = new Groups<A>()
  readonly inFlight = new Set<Batch<A>>()
  readonly refused = new RefusedRows<A>()
  /** Groups with records that rest, and groups with records that are woken. */
  readonly resting = new Set<Group<A>>()
  readonly woken = new Set<Group<A>>()
  /** Groups in which records have begun to wait that are not yet compared with what was written. */
  toSift: Array<Group<A>> = []
  /** How many records rest. */
  restingCount = 0
  /** How many keys are remembered as written. */
  rememberedCount = 0
  /** When resting records are looked at next. */
  wakeAt = 0
  /** The keys of the report that was last found to list none twice. */
  commonKeys: ReadonlyArray<string> = []

  constructor(definition: NewestWins<A>, environment: Environment<A>) {
    this.definition = definition
    this.environment = environment
  }

  /** Lets go of everything. */
  clear(): void {
    this.groups.clear()
    this.inFlight.clear()
    this.refused.clear()
    this.resting.clear()
    this.woken.clear()
    this.restingCount = 0
    this.rememberedCount = 0
  }

  /** What waits of a group; an empty one begins to wait now. */
  waitingOf(group: Group<A>, since: number): Held<A> {
    if (group.waiting === undefined) {
      const own: Array<A> = []
      group.waiting = {
        group: group.id,
        records: own,
        own,
        bytes: 0,
        since,
        spans: [],
        ...unknownKeys,
        quiet: false
      }
      this.groups.enqueue(group)
    }
    return group.waiting
  }

  /** Something has begun to wait: it may say what was last written. */
  noteWaiting(group: Group<A>): void {
    if (group.written === undefined || group.isToSift) return
    group.isToSift = true
    this.toSift.push(group)
  }

  /** Whether no key stands twice in these; if so, other reports are expected to list the same. */
  haveDistinctKeys(report: Held<A>): boolean {
    if (report.keys !== undefined) return true
    const keys = report.records.map(this.definition.key)
    const { commonKeys } = this
    const areCommon = keys.length === commonKeys.length && keys.every((key, i) => key === commonKeys[i])
    if (!areCommon) {
      if (new Set(keys).size < keys.length) return false
      this.commonKeys = keys
    }
    // The report's times were noted as it was added.
    report.keys = this.commonKeys
    return true
  }

  // A getter may throw; by then the record has been counted, and that must stay right.
  readonly bytesOf = (record: A): number => {
    try {
      return this.definition.bytes(record) || 0
    } catch {
      return 0
    }
  }

  timeOf(record: A): number {
    try {
      return this.definition.time(record)
    } catch {
      return Number.NEGATIVE_INFINITY
    }
  }

  readonly keyOf = (record: A): string => {
    try {
      return String(this.definition.key(record))
    } catch {
      return ""
    }
  }

  tell(group: string, record: A, reason: Discarded<A>["reason"], why: string): void {
    if (this.environment.discards) this.environment.discard({ group, record, reason, why })
  }
}
