import type { Group, Resting } from "./group.ts"

/**
 * Rows that wait although there is room for them in a batch, because they say
 * what was last written. Those whose time has come are `due`; looking for them
 * is put off until half an interval has passed since the last look.
 */
export class RestingRows<A> {
  private readonly rows = new Set<Resting<A>>()
  private due = new Set<Resting<A>>()
  private lookAt = 0
  private readonly lookEveryMillis: number

  constructor(intervalMillis: number) {
    this.lookEveryMillis = intervalMillis / 2
  }

  /** Those that no batch takes yet. */
  get size(): number {
    return this.rows.size
  }

  add(row: Resting<A>): void {
    this.rows.add(row)
    row.group.resting ??= new Map()
    row.group.resting.set(row.key, row)
  }

  remove(row: Resting<A>): void {
    this.rows.delete(row)
    this.due.delete(row)
    row.group.resting?.delete(row.key)
    if (row.group.resting?.size === 0) row.group.resting = undefined
  }

  /** Lets batches take the rows of a group, whatever their time. */
  wakeGroup(group: Group<A>): void {
    for (const row of group.resting?.values() ?? []) if (this.rows.delete(row)) this.due.add(row)
  }

  wakeDue(now: number): void {
    if (this.rows.size === 0 || now < this.lookAt) return
    this.lookAt = now + this.lookEveryMillis
    for (const row of this.rows) {
      if (row.dueAt > now) continue
      this.rows.delete(row)
      this.due.add(row)
    }
  }

  /** Takes at most `max` of those that are due. */
  takeDue(max: number): ReadonlyArray<Resting<A>> {
    if (this.due.size === 0) return []
    const taken: Array<Resting<A>> = []
    for (const row of this.due) {
      if (taken.length === max) break
      taken.push(row)
    }
    for (const row of taken) this.remove(row)
    return taken
  }
}
