import type { Origin } from "./held.ts"

/** What is refused for longer than this is given up. */
export const maxRefusedMillis = 3_600_000

const firstPauseMillis = 1_000
const maxPauseMillis = 60_000

/** A row that the store refused, waiting apart with its newest record. */
export interface RefusedRow<A> {
  /** Not what it was held with: the rest of its report must not stay in memory for its sake. */
  readonly origin: Origin
  readonly key: string
  readonly refusedAt: number
  why: string
  dueAt: number
  /** Whether a batch that tries it again is being written. */
  isTried: boolean
  /** What waits: the refused record, or a newer one. While it is tried, what came since, if anything did. */
  record: A | undefined
  bytes: number
}

/**
 * The rows that the store refused, the longest refused first.
 *
 * Each is tried again alone, a second after it was refused and then after an
 * eighth of the time for which it has been refused, a minute at most: what an
 * operator puts right within a minute is written within ten seconds. Once one
 * has been written, twice as many are tried at a time, until one is refused.
 */
export class RefusedRows<A> {
  private readonly rows = new Set<RefusedRow<A>>()
  private atOnce = 1

  get size(): number {
    return this.rows.size
  }

  add(
    { group, since, spans }: Origin,
    row: Pick<RefusedRow<A>, "bytes" | "key" | "record" | "why">,
    now: number
  ): RefusedRow<A> {
    const origin = { group, since, spans }
    const added = { ...row, origin, refusedAt: now, dueAt: now + firstPauseMillis, isTried: false }
    this.rows.add(added)
    return added
  }

  delete(row: RefusedRow<A>): void {
    this.rows.delete(row)
  }

  /** It has been tried and is refused still. */
  postpone(row: RefusedRow<A>, now: number): void {
    row.dueAt = now + Math.min(maxPauseMillis, firstPauseMillis + (now - row.refusedAt) / 8)
    this.atOnce = 1
  }

  /** One was written: there may be more where it came from. */
  widen(now: number): void {
    this.atOnce *= 2
    for (const row of this.rows) row.dueAt = Math.min(row.dueAt, now)
  }

  hasDue(now: number): boolean {
    for (const row of this.rows) if (row.dueAt <= now && !row.isTried) return true
    return false
  }

  /** The rows to try now, out of those that are due the ones that have waited for their turn longest. */
  due(now: number, max: number): ReadonlyArray<RefusedRow<A>> {
    const due: Array<RefusedRow<A>> = []
    for (const row of this.rows) if (row.dueAt <= now && !row.isTried) due.push(row)
    return due.sort((a, b) => a.dueAt - b.dueAt).slice(0, Math.min(max, this.atOnce))
  }

  /** The longest refused row that is not being tried just now. */
  longest(): RefusedRow<A> | undefined {
    for (const row of this.rows) if (!row.isTried) return row
    return undefined
  }

  clear(): void {
    this.rows.clear()
  }

  values(): Iterable<RefusedRow<A>> {
    return this.rows.values()
  }
}
