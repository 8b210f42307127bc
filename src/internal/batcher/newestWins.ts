import type { Accumulator, Environment } from "./accumulator.ts"
import { type Batch, eachHeld, makeBatch, notWritten, type Outcome } from "./batch.ts"
import type { Discarded } from "./definition.ts"
import type { Group, Resting } from "./group.ts"
import { Groups } from "./groups.ts"
import { type Held, hold, joinSpans, ownRecords, type Report, spansOf, splitHeld } from "./held.ts"
import { batchOf, maxRefusedMillis, type RefusedRow, RefusedRows } from "./refused.ts"
import { RestingRows } from "./resting.ts"
import { isSame, remember } from "./unchanged.ts"

/** What a definition says of its records. */
export interface NewestWins<in out A> {
  readonly key: (record: A) => string
  readonly time: (record: A) => number
  readonly bytes: (record: A) => number
  readonly content: ((record: A) => ReadonlyArray<string>) | undefined
}

/** The keys of a report that has been found to list none twice. */
type Shape = ReadonlyArray<string>

/**
 * Keeps the newest record per group and key.
 *
 * A report that lists the same keys in the same order as the one that waits,
 * none of them older, replaces it as a whole: two comparisons per record, and
 * nothing is allocated. Only where keys differ are they merged one by one.
 */
export class NewestWinsAccumulator<A> implements Accumulator<A> {
  private readonly definition: NewestWins<A>
  private readonly environment: Environment<A>
  private readonly groups = new Groups<A>()
  private readonly inFlight = new Set<Batch<A>>()
  private readonly refusedRows = new RefusedRows<A>()
  private readonly restingRows: RestingRows<A>
  private remembered = 0
  private shape: Shape = []

  constructor(definition: NewestWins<A>, environment: Environment<A>) {
    this.definition = definition
    this.environment = environment
    this.restingRows = new RestingRows(environment.interval)
  }

  fold(report: Report<A>): void {
    const { account } = this.environment
    account.queued -= report.records.length
    const group = this.groups.getOrAdd(report.group)
    if (group.refused === undefined && group.resting === undefined && this.foldWhole(group, report)) return
    account.bytes -= report.bytes
    for (let i = 0; i < report.records.length; i++) {
      this.merge(group, report.records[i] as A, i, report.at, spansOf(report.span), true)
    }
  }

  private foldWhole(group: Group<A>, report: Report<A>): boolean {
    const { account } = this.environment
    const { records } = report
    const { waiting } = group
    try {
      const isWhole =
        waiting === undefined ? this.haveDistinctKeys(records) : this.replaceAll(waiting.records, records)
      if (!isWhole) return false
    } catch {
      // A getter may throw: record by record it costs only its own.
      return false
    }
    if (waiting === undefined) {
      group.waiting = hold(report)
      this.groups.enqueue(group)
      account.pending += records.length
      return true
    }
    account.superseded += records.length
    account.bytes -= waiting.bytes
    waiting.records = records
    waiting.own = undefined
    waiting.bytes = report.bytes
    waiting.spans = spansOf(report.span)
    return true
  }

  /** Whether each newer record has the key of the one at its position, and is not older. */
  private replaceAll(older: ReadonlyArray<A>, newer: ReadonlyArray<A>): boolean {
    const { key, time } = this.definition
    if (older.length !== newer.length) return false
    for (let i = 0; i < newer.length; i++) {
      const [before, after] = [older[i] as A, newer[i] as A]
      if (key(before) !== key(after) || !(time(after) >= time(before))) return false
    }
    return true
  }

  /** Agents of one kind list the same keys, so most reports have the shape of the one before. */
  private haveDistinctKeys(records: ReadonlyArray<A>): boolean {
    const { key } = this.definition
    const { shape } = this
    let isKnown = records.length === shape.length
    for (let i = 0; isKnown && i < records.length; i++) isKnown = key(records[i] as A) === shape[i]
    if (isKnown) return true
    const keys = records.map(key)
    if (new Set(keys).size < keys.length) return false
    this.shape = keys
    return true
  }

  /** Where one record goes. Of equal times the later add wins: `isLater` says which of the two it is. */
  private merge(
    group: Group<A>,
    record: A,
    likely: number,
    since: number,
    spans: Held<A>["spans"],
    isLater: boolean
  ): void {
    const { account } = this.environment
    let key: string
    let time: number
    let bytes: number
    try {
      key = this.definition.key(record)
      time = this.definition.time(record)
      bytes = this.definition.bytes(record)
    } catch {
      account.discarded += 1
      return
    }
    const isOlderThan = (held: A) => (isLater ? time < this.timeOf(held) : time <= this.timeOf(held))

    const refused = group.refused?.get(key)
    if (refused !== undefined) {
      if (refused.record === undefined) account.refused += 1
      else account.superseded += 1
      if (refused.record !== undefined && isOlderThan(refused.record)) return
      account.bytes += bytes - (refused.record === undefined ? 0 : refused.bytes)
      refused.record = record
      refused.bytes = bytes
      return
    }

    const resting = group.resting?.get(key)
    if (resting !== undefined) {
      if (isOlderThan(resting.record)) {
        account.superseded += 1
        return
      }
      this.restingRows.remove(resting)
      account.unchanged += 1
      account.pending -= 1
      account.bytes -= resting.bytes
    }

    const position = group.positionOf(key, likely, this.definition.key)
    const waiting = this.waitingOf(group, since)
    if (position === -1) {
      ownRecords(waiting).push(record)
      account.pending += 1
    } else {
      account.superseded += 1
      const before = waiting.records[position] as A
      if (isOlderThan(before)) return
      ownRecords(waiting)[position] = record
      const bytesBefore = this.bytesOf(before)
      waiting.bytes -= bytesBefore
      account.bytes -= bytesBefore
    }
    waiting.bytes += bytes
    account.bytes += bytes
    waiting.since = Math.min(waiting.since, since)
    waiting.spans = joinSpans(waiting.spans, spans)
  }

  private waitingOf(group: Group<A>, since: number): Held<A> {
    if (group.waiting === undefined) {
      const own: Array<A> = []
      group.waiting = { group: group.id, records: own, own, bytes: 0, since, spans: [], quiet: false }
      this.groups.enqueue(group)
    }
    return group.waiting
  }

  private timeOf(record: A): number {
    try {
      return this.definition.time(record)
    } catch {
      return Number.NEGATIVE_INFINITY
    }
  }

  private bytesOf = (record: A): number => {
    try {
      return this.definition.bytes(record)
    } catch {
      return 0
    }
  }

  admit(report: Report<A>): number {
    const group = this.groups.getOrAdd(report.group)
    const unsettledTwice = this.waitingAndInFlight()
    let taken = 0
    let twice = unsettledTwice
    for (let i = 0; i < report.records.length; i++) {
      const record = report.records[i] as A
      const known = this.knownBytes(group, record, i)
      if (known.bytes < 0 ? !this.makeRoom(record, twice) : !this.fits(record, known.bytes)) continue
      if (known.inFlightOnly) twice += 1
      taken += 1
      this.merge(group, record, i, report.at, spansOf(report.span), true)
    }
    return taken
  }

  /** Rows of a key that waits while an older record of it is being written: one key, but counted twice. */
  private waitingAndInFlight(): number {
    const { account, maxPending } = this.environment
    if (account.pending + account.inFlight + account.refused < maxPending) return 0
    let count = 0
    for (const batch of this.inFlight) {
      batch.records.forEach((record, position) => {
        const group = this.groups.get(batch.groups[position] as string)
        if (group !== undefined && this.waitingBytes(group, record, position) >= 0) count += 1
      })
    }
    return count
  }

  private waitingBytes(group: Group<A>, record: A, likely: number): number {
    const key = this.definition.key(record)
    const refused = group.refused?.get(key)
    if (refused !== undefined) return refused.bytes
    const resting = group.resting?.get(key)
    if (resting !== undefined) return resting.bytes
    const position = group.positionOf(key, likely, this.definition.key)
    return position === -1 ? -1 : this.bytesOf(group.waiting?.records[position] as A)
  }

  /** The bytes of what is held under the key of this record, or -1. */
  private knownBytes(group: Group<A>, record: A, likely: number): { bytes: number; inFlightOnly: boolean } {
    try {
      const waiting = this.waitingBytes(group, record, likely)
      if (waiting >= 0) return { bytes: waiting, inFlightOnly: false }
      const key = this.definition.key(record)
      for (const batch of this.inFlight) {
        for (const held of batch.held) {
          if (held.group !== group.id) continue
          const found = held.records.find((other) => this.definition.key(other) === key)
          if (found !== undefined) return { bytes: this.bytesOf(found), inFlightOnly: true }
        }
      }
    } catch {
      // Its turn to be counted as what it is comes when it is merged.
    }
    return { bytes: -1, inFlightOnly: false }
  }

  private fits(record: A, bytesHeld: number): boolean {
    const { account, maxPendingBytes } = this.environment
    const bytes = this.bytesOf(record)
    return bytes <= bytesHeld || account.bytes + bytes - bytesHeld <= maxPendingBytes
  }

  /** Room for a key that is not known: refused rows give way, the longest refused first. */
  private makeRoom(record: A, twice: number): boolean {
    const { account, maxPending, maxPendingBytes } = this.environment
    const bytes = this.bytesOf(record)
    const hasRoom = () =>
      account.pending + account.inFlight + account.refused - twice < maxPending &&
      account.bytes + bytes <= maxPendingBytes
    while (!hasRoom()) {
      const longest = this.refusedRows.longest()
      if (longest === undefined) return false
      this.giveUpRefused(longest, "evicted")
    }
    return true
  }

  ready(): number {
    this.restingRows.wakeDue(this.environment.now())
    return this.environment.account.pending - this.restingRows.size
  }

  take(max: number): Batch<A> | undefined {
    const { account } = this.environment
    const held: Array<Held<A>> = this.takeRested(max)
    let size = held.reduce((sum, { records }) => sum + records.length, 0)
    while (size < max) {
      const group = this.groups.dequeue()
      if (group === undefined) break
      if (group.written !== undefined) this.tryRest(group)
      const { waiting } = group
      if (waiting === undefined) continue
      const taken = this.takeFrom(group, waiting, max - size)
      held.push(taken)
      size += taken.records.length
    }
    if (size === 0) return undefined
    account.pending -= size
    account.inFlight += size
    return this.begin(makeBatch(held))
  }

  private takeFrom(group: Group<A>, waiting: Held<A>, room: number): Held<A> {
    const { length } = waiting.records
    if (group.due === 0 || group.due > length) group.due = length
    const count = Math.min(group.due, room)
    group.due -= count
    if (count === length) {
      group.waiting = undefined
      return waiting
    }
    if (group.due > 0) this.groups.putBack(group)
    else this.groups.enqueue(group)
    return splitHeld(waiting, count, this.bytesOf)
  }

  private begin(batch: Batch<A>): Batch<A> {
    this.inFlight.add(batch)
    return batch
  }

  private takeRested(max: number): Array<Held<A>> {
    this.restingRows.wakeDue(this.environment.now())
    const byGroup = new Map<Group<A>, Array<Resting<A>>>()
    for (const row of this.restingRows.takeDue(max)) {
      const rows = byGroup.get(row.group)
      if (rows === undefined) byGroup.set(row.group, [row])
      else rows.push(row)
    }
    return Array.from(byGroup, ([group, rows]) => {
      const records = rows.map(({ record }) => record)
      const bytes = rows.reduce((sum, row) => sum + row.bytes, 0)
      const since = Math.min(...rows.map((row) => row.since))
      return { group: group.id, records, own: records, bytes, since, spans: [], quiet: true }
    })
  }

  private tryRest(group: Group<A>): void {
    try {
      this.rest(group)
    } catch {
      // A getter threw: what cannot be compared is written.
    }
  }

  /** Sets apart those of a group's records that say what was last written, until it is their time. */
  private rest(group: Group<A>): void {
    const { now, unchanged } = this.environment
    const { content, key } = this.definition
    const { waiting, written } = group
    if (waiting === undefined || written === undefined || content === undefined) return
    const at = now()
    const different: Array<A> = []
    for (const record of waiting.records) {
      const remembered = written.get(key(record))
      const dueAt = remembered === undefined ? at : remembered.at + unchanged
      if (remembered === undefined || dueAt <= at || !isSame(remembered, content(record))) {
        different.push(record)
        continue
      }
      const bytes = this.bytesOf(record)
      this.restingRows.add({ group, key: key(record), record, bytes, since: waiting.since, dueAt })
      waiting.bytes -= bytes
    }
    if (different.length === waiting.records.length) return
    waiting.records = different
    waiting.own = different
    if (different.length === 0) group.waiting = undefined
  }

  hasRefusedDue(): boolean {
    return this.refusedRows.hasDue(this.environment.now())
  }

  takeRefused(max: number): Batch<A> | undefined {
    const { account, now } = this.environment
    const rows = this.refusedRows.due(now(), max)
    if (rows.length === 0) return undefined
    const batch = batchOf(rows)
    for (const row of rows) row.record = undefined
    account.refused -= rows.length
    account.inFlight += rows.length
    return this.begin(batch)
  }

  settle(batch: Batch<A>, outcome: Outcome): void {
    // After the batcher has given up, nobody counts any more.
    if (!this.inFlight.delete(batch)) return
    const { account } = this.environment
    const { failed, missing, refused, superseded, unwritten } = outcome
    account.inFlight -= batch.records.length
    account.bytes -= batch.bytes
    account.superseded += superseded.length
    account.discarded += missing.length + failed.length
    account.written += batch.records.length - notWritten(outcome).length
    this.tellDiscarded(batch, outcome)
    if (this.environment.unchanged > 0) this.rememberWritten(batch, outcome)
    if (batch.retried !== undefined) this.settleRetried(batch, batch.retried, outcome)
    else {
      const whys = new Map(refused.map(({ position, why }) => [position, why]))
      eachHeld(batch, Array.from(whys.keys()).sort(ascending), (position, record, held) =>
        this.setApart(batch, record, held, whys.get(position) ?? "")
      )
      this.restore(batch, unwritten)
    }
  }

  private restore(batch: Batch<A>, positions: ReadonlyArray<number>): void {
    const { account } = this.environment
    eachHeld(batch, positions, (position, record, held) => {
      if (batch.forgotten.has(held.group)) account.discarded += 1
      else this.merge(this.groups.getOrAdd(held.group), record, position, held.since, held.spans, false)
    })
  }

  private setApart(batch: Batch<A>, record: A, held: Held<A>, why: string): void {
    const { account, now } = this.environment
    if (batch.forgotten.has(held.group)) {
      account.discarded += 1
      return
    }
    const group = this.groups.getOrAdd(held.group)
    const key = this.keyOf(record)
    const known = group.refused?.get(key)
    if (known !== undefined) {
      known.why = why
      this.merge(group, record, 0, held.since, held.spans, false)
      return
    }
    const bytes = this.bytesOf(record)
    group.refused ??= new Map()
    group.refused.set(key, this.refusedRows.add({ held, key, why, record, bytes }, now()))
    account.refused += 1
    account.bytes += bytes
    this.refuseWaiting(group, key)
  }

  /** What came for the key while it was being refused waits with it. */
  private refuseWaiting(group: Group<A>, key: string): void {
    const { account } = this.environment
    const { waiting } = group
    const position = group.positionOf(key, 0, this.definition.key)
    if (waiting === undefined || position === -1) return
    const [record] = ownRecords(waiting).splice(position, 1)
    group.forgetIndex()
    const bytes = this.bytesOf(record as A)
    waiting.bytes -= bytes
    account.bytes -= bytes
    account.pending -= 1
    this.merge(group, record as A, 0, waiting.since, waiting.spans, true)
    if (waiting.records.length === 0) group.waiting = undefined
  }

  private keyOf(record: A): string {
    try {
      return String(this.definition.key(record))
    } catch {
      return "not a string"
    }
  }

  private settleRetried(batch: Batch<A>, rows: ReadonlyArray<RefusedRow<A>>, outcome: Outcome): void {
    const { account, now } = this.environment
    const whys = new Map(outcome.refused.map(({ position, why }) => [position, why]))
    const stays = new Set([...whys.keys(), ...outcome.unwritten])
    let written = false
    rows.forEach((row, position) => {
      const group = this.groups.getOrAdd(row.held.group)
      const isForgotten = batch.forgotten.has(row.held.group)
      if (isForgotten || !stays.has(position)) {
        written ||= !isForgotten
        this.release(group, row)
        if (isForgotten && stays.has(position)) account.discarded += 1
        return
      }
      row.why = whys.get(position) ?? row.why
      if (whys.has(position)) this.refusedRows.postpone(row, now())
      if (row.record !== undefined) {
        account.superseded += 1
        return
      }
      row.record = batch.records[position] as A
      row.bytes = this.bytesOf(row.record)
      account.refused += 1
      account.bytes += row.bytes
      if (now() - row.refusedAt > maxRefusedMillis) this.giveUpRefused(row, "refused")
    })
    if (written && outcome.refused.length === 0) this.refusedRows.widen(now())
  }

  /** Ends the time apart of a key: what came meanwhile waits as any other. */
  private release(group: Group<A>, row: RefusedRow<A>): void {
    const { account } = this.environment
    this.refusedRows.delete(row)
    group.refused?.delete(row.key)
    if (group.refused?.size === 0) group.refused = undefined
    if (row.record === undefined) return
    account.refused -= 1
    account.bytes -= row.bytes
    this.merge(group, row.record, 0, row.held.since, row.held.spans, true)
  }

  private giveUpRefused(row: RefusedRow<A>, reason: Discarded<A>["reason"]): void {
    const { account } = this.environment
    const group = this.groups.getOrAdd(row.held.group)
    const { record } = row
    row.record = undefined
    this.release(group, row)
    account.refused -= 1
    account.discarded += 1
    account.bytes -= row.bytes
    if (record !== undefined) this.tell(group.id, record, reason, row.why)
  }

  private rememberWritten(batch: Batch<A>, outcome: Outcome): void {
    const { interval, maxPending, now, unchanged } = this.environment
    const { content, key, time } = this.definition
    if (content === undefined) return
    const at = now()
    const elsewhere = new Set(notWritten(outcome))
    if (this.remembered >= maxPending) this.forgetExpired(at - unchanged)
    batch.records.forEach((record, position) => {
      const group = this.groups.getOrAdd(batch.groups[position] as string)
      const name = key(record)
      if (elsewhere.has(position) || batch.forgotten.has(group.id)) {
        if (group.written?.delete(name)) this.remembered -= 1
        return
      }
      group.written ??= new Map()
      if (!group.written.has(name)) {
        if (this.remembered >= maxPending) return
        this.remembered += 1
      }
      // What the table says is as old as the record, which waited for an interval at most.
      const collected = Math.min(at, Math.max(time(record), at - interval))
      group.written.set(name, remember(content(record), collected))
    })
  }

  private forgetExpired(before: number): void {
    for (const group of this.groups.values()) {
      for (const [key, { at }] of group.written ?? []) {
        if (at <= before && group.written?.delete(key)) this.remembered -= 1
      }
      if (group.written?.size === 0) group.written = undefined
    }
  }

  forget(id: string): void {
    const { account } = this.environment
    for (const batch of this.inFlight) {
      if (batch.held.some(({ group }) => group === id)) batch.forgotten.add(id)
    }
    const group = this.groups.get(id)
    if (group === undefined) return
    this.forgetWritten(id)
    const { waiting } = group
    if (waiting !== undefined) {
      account.pending -= waiting.records.length
      account.discarded += waiting.records.length
      account.bytes -= waiting.bytes
      group.waiting = undefined
    }
    for (const row of Array.from(group.resting?.values() ?? [])) {
      this.restingRows.remove(row)
      account.pending -= 1
      account.discarded += 1
      account.bytes -= row.bytes
    }
    for (const row of Array.from(group.refused?.values() ?? [])) {
      if (row.record === undefined) continue
      row.record = undefined
      account.refused -= 1
      account.discarded += 1
      account.bytes -= row.bytes
      this.release(group, row)
    }
  }

  forgetWritten(id: string | undefined): void {
    const known = id === undefined ? Array.from(this.groups.values()) : [this.groups.get(id)]
    for (const group of known) {
      if (group?.written === undefined) continue
      this.remembered -= group.written.size
      group.written = undefined
      this.restingRows.wakeGroup(group)
    }
  }

  giveUp(): void {
    const { account, discards } = this.environment
    if (discards) {
      for (const batch of this.inFlight) {
        for (const { group, records } of batch.held) {
          for (const record of records) this.tell(group, record, "unwritten", "")
        }
      }
      for (const group of this.groups.values()) {
        for (const record of group.waiting?.records ?? []) this.tell(group.id, record, "unwritten", "")
        for (const { record } of group.resting?.values() ?? []) this.tell(group.id, record, "unwritten", "")
        for (const { record, why } of group.refused?.values() ?? []) {
          if (record !== undefined) this.tell(group.id, record, "refused", why)
        }
      }
    }
    this.inFlight.clear()
    account.discarded += account.pending + account.inFlight + account.refused
    account.pending = 0
    account.inFlight = 0
    account.refused = 0
    account.bytes = 0
  }

  private tellDiscarded(batch: Batch<A>, { failed, failure, missing }: Outcome): void {
    if (!this.environment.discards) return
    eachHeld(batch, missing, (_, record, held) => this.tell(held.group, record, "missing", ""))
    eachHeld(batch, failed, (_, record, held) =>
      this.tell(held.group, record, "failed", failure?.message ?? "")
    )
  }

  private tell(group: string, record: A, reason: Discarded<A>["reason"], why: string): void {
    if (this.environment.discards) this.environment.discard({ group, record, reason, why })
  }

  oldest(): number | undefined {
    let oldest = Number.POSITIVE_INFINITY
    for (const { waiting } of this.groups.values()) {
      if (waiting !== undefined) oldest = Math.min(oldest, waiting.since)
    }
    for (const batch of this.inFlight) {
      for (const { quiet, since } of batch.held) if (!quiet) oldest = Math.min(oldest, since)
    }
    for (const { held } of this.refusedRows.values()) oldest = Math.min(oldest, held.since)
    return oldest === Number.POSITIVE_INFINITY ? undefined : oldest
  }
}

const ascending = (a: number, b: number): number => a - b
