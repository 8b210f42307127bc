import * as MutableList from "effect/MutableList"
import type { Accumulator, Environment } from "./accumulator.ts"
import { type Batch, eachHeld, makeBatch, type Outcome } from "./batch.ts"
import { attempt } from "./failure.ts"
import { type Held, splitHeld } from "./held.ts"
import type { Discarded } from "./models.ts"
import { type RefusedRow, RefusedRows } from "./refused.ts"
import { settleRetried, takeRefused } from "./retry.ts"
import { countGivenUp, countSettled, eachRefused } from "./settling.ts"

const noKeys: ReadonlyArray<string> = []

/** What a definition says of its records. */
export interface AppendOnly<in out A> {
  readonly key: (record: A) => string
  readonly bytes: (record: A) => number
}

/**
 * Keeps every record in the order it came. Where there is no room the oldest
 * goes first: what is appended is looked at for what happens now.
 */
export class AppendOnlyAccumulator<A> implements Accumulator<A> {
  private readonly definition: AppendOnly<A>
  private readonly environment: Environment<A>
  private readonly waiting = MutableList.make<Held<A>>()
  private readonly inFlight = new Set<Batch<A>>()
  private readonly refusedRows = new RefusedRows<A>()

  constructor(definition: AppendOnly<A>, environment: Environment<A>) {
    this.definition = definition
    this.environment = environment
  }

  // Nothing replaces anything here.
  commonKeys(): ReadonlyArray<string> {
    return noKeys
  }

  fold(report: Held<A>): void {
    const { account } = this.environment
    account.queued -= report.records.length
    account.pending += report.records.length
    MutableList.append(this.waiting, report)
  }

  admit(report: Held<A>): number {
    const { account, maxPending, maxPendingBytes } = this.environment
    const size = report.records.length
    const hasRoom = () =>
      account.pending + account.refused + size <= maxPending &&
      account.bytes + report.bytes <= maxPendingBytes
    // What is in a write cannot make room: then nothing is given up for what would find none.
    const bytesInWrites = Array.from(this.inFlight).reduce((bytes, batch) => bytes + batch.bytes, 0)
    if (size > maxPending || bytesInWrites + report.bytes > maxPendingBytes) return 0
    while (!hasRoom()) if (!this.evictOldest()) return 0
    account.bytes += report.bytes
    account.pending += size
    MutableList.append(this.waiting, report)
    return size
  }

  /** Gives up the longest refused row, or else the oldest one that waits. */
  private evictOldest(): boolean {
    const { account } = this.environment
    const refused = this.refusedRows.longest()
    if (refused !== undefined) {
      this.giveUpRefused(refused, "evicted")
      return true
    }
    const oldest = MutableList.take(this.waiting)
    if (oldest === MutableList.Empty) return false
    const taken = splitHeld(oldest, 1, this.bytesOf)
    if (oldest.records.length > 0) MutableList.prepend(this.waiting, oldest)
    account.pending -= 1
    account.discarded += 1
    account.bytes -= oldest.records.length > 0 ? taken.bytes : taken.bytes + oldest.bytes
    this.tell(taken.group, taken.records[0] as A, "evicted", "")
    return true
  }

  ready(): number {
    return this.environment.account.pending
  }

  take(max: number): Batch<A> | undefined {
    const { account } = this.environment
    const held: Array<Held<A>> = []
    let size = 0
    while (size < max) {
      const next = MutableList.take(this.waiting)
      if (next === MutableList.Empty) break
      if (next.records.length > max - size) {
        held.push(splitHeld(next, max - size, this.bytesOf))
        MutableList.prepend(this.waiting, next)
        size = max
      } else {
        held.push(next)
        size += next.records.length
      }
    }
    if (size === 0) return undefined
    account.pending -= size
    account.inFlight += size
    return this.begin(makeBatch(held, size))
  }

  private begin(batch: Batch<A>): Batch<A> {
    this.inFlight.add(batch)
    return batch
  }

  hasRefusedDue(): boolean {
    return this.refusedRows.hasDue(this.environment.elapsed())
  }

  takeRefused(max: number): Batch<A> | undefined {
    const batch = takeRefused(this.refusedRows, this.environment, max)
    return batch && this.begin(batch)
  }

  settle(batch: Batch<A>, outcome: Outcome): void {
    // After the batcher has given up, nobody counts any more.
    if (!this.inFlight.delete(batch)) return
    countSettled(this.environment, batch, outcome)
    if (batch.retried !== undefined) {
      this.settleRetried(batch, outcome)
      return
    }
    eachRefused(batch, outcome, (record, held, why) => {
      if (batch.forgotten.has(held.group)) this.environment.account.discarded += 1
      else this.setApart(record, held, why)
    })
    this.restore(batch, outcome.unwritten)
  }

  private setApart(record: A, held: Held<A>, why: string): void {
    const { account, elapsed } = this.environment
    const bytes = this.bytesOf(record)
    this.refusedRows.add(held, { key: this.keyOf(record), why, record, bytes }, elapsed())
    account.refused += 1
    account.bytes += bytes
  }

  /** Puts back what was not written, in front of what came since. */
  private restore(batch: Batch<A>, positions: ReadonlyArray<number>): void {
    const { account } = this.environment
    const back = new Map<Held<A>, Array<A>>()
    eachHeld(batch, positions, (_, record, held) => {
      if (batch.forgotten.has(held.group)) {
        account.discarded += 1
        return
      }
      const records = back.get(held)
      if (records === undefined) back.set(held, [record])
      else records.push(record)
    })
    const restored = Array.from(back, ([held, records]) => {
      const bytes = records.reduce((sum, record) => sum + this.bytesOf(record), 0)
      account.pending += records.length
      account.bytes += bytes
      return { ...held, records, own: records, bytes }
    })
    MutableList.prependAllUnsafe(this.waiting, restored)
  }

  private settleRetried(batch: Batch<A>, outcome: Outcome): void {
    const { account } = this.environment
    settleRetried(this.refusedRows, this.environment, batch, outcome, {
      release: (row) => this.refusedRows.delete(row),
      keep: (row, tried) => {
        row.record = tried
        account.refused += 1
        account.bytes += row.bytes
      },
      giveUp: (row) => this.giveUpRefused(row, "refused")
    })
  }

  private giveUpRefused(row: RefusedRow<A>, reason: Discarded<A>["reason"]): void {
    const { account } = this.environment
    this.refusedRows.delete(row)
    account.refused -= 1
    account.discarded += 1
    account.bytes -= row.bytes
    if (row.record !== undefined) this.tell(row.origin.group, row.record, reason, row.why)
  }

  forget(group: string): void {
    const { account } = this.environment
    for (const batch of this.inFlight) {
      if (batch.held.some((held) => held.group === group)) batch.forgotten.add(group)
    }
    for (const held of MutableList.toArray(this.waiting)) {
      if (held.group !== group) continue
      account.pending -= held.records.length
      account.discarded += held.records.length
      account.bytes -= held.bytes
    }
    MutableList.filter(this.waiting, (held) => held.group !== group)
    for (const row of Array.from(this.refusedRows.values())) {
      if (row.origin.group !== group || row.record === undefined) continue
      this.refusedRows.delete(row)
      account.refused -= 1
      account.discarded += 1
      account.bytes -= row.bytes
    }
  }

  forgetWritten(): void {}

  giveUp(): void {
    const { account, discards } = this.environment
    if (discards) {
      const batches = Array.from(this.inFlight).flatMap(({ held }) => held)
      for (const { group, records } of [...batches, ...MutableList.toArray(this.waiting)]) {
        for (const record of records) this.tell(group, record, "unwritten", "")
      }
      for (const { origin, record, why } of this.refusedRows.values()) {
        if (record !== undefined) this.tell(origin.group, record, "refused", why)
      }
    }
    this.inFlight.clear()
    MutableList.clear(this.waiting)
    this.refusedRows.clear()
    countGivenUp(account)
  }

  oldest(): number | undefined {
    let oldest = this.waiting.head?.array[this.waiting.head.offset]?.since ?? Number.POSITIVE_INFINITY
    for (const batch of this.inFlight) for (const { since } of batch.held) oldest = Math.min(oldest, since)
    for (const { origin } of this.refusedRows.values()) oldest = Math.min(oldest, origin.since)
    return oldest === Number.POSITIVE_INFINITY ? undefined : oldest
  }

  // A getter may throw; by then the record has been counted, and that must stay right.
  private keyOf = (record: A): string => attempt(() => this.definition.key(record), "")

  private bytesOf = (record: A): number => attempt(() => this.definition.bytes(record) || 0, 0)

  private tell(group: string, record: A, reason: Discarded<A>["reason"], why: string): void {
    if (this.environment.discards) this.environment.discard({ group, record, reason, why })
  }
}
