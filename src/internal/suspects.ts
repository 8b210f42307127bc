/** How many are remembered: the longest known go first. */
const maxSuspects = 10_000

/**
 * Rows to be written apart from clean ones, by what identifies them: those that
 * had to be searched for because the store rejected their batch without naming
 * them, and those not reached by that search.
 */
export class Suspects<Row> {
  private readonly ids = new Set<string>()
  private readonly identify: (row: Row) => string

  constructor(identify: (row: Row) => string) {
    this.identify = identify
  }

  add(rows: ReadonlyArray<Row>): void {
    for (const row of rows) this.ids.add(this.identify(row))
    for (const id of this.ids) {
      if (this.ids.size <= maxSuspects) break
      this.ids.delete(id)
    }
  }

  clear(rows: ReadonlyArray<Row>): void {
    if (this.ids.size > 0) for (const row of rows) this.ids.delete(this.identify(row))
  }

  /** The rows above suspicion, and the others. */
  split(rows: ReadonlyArray<Row>): readonly [clean: ReadonlyArray<Row>, suspects: ReadonlyArray<Row>] {
    if (this.ids.size === 0) return [rows, []]
    const clean: Array<Row> = []
    const suspects: Array<Row> = []
    for (const row of rows) (this.ids.has(this.identify(row)) ? suspects : clean).push(row)
    return [clean, suspects]
  }
}
