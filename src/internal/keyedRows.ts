/** Up to this many rows, looking at each is faster than hashing the key. */
const maxScanned = 16

/**
 * The rows of one agent by key, in the order in which they came: an array,
 * because agents have few keys and list them in one order, with a `Map` beside
 * it for those that have many. Next to a `Map` alone this takes an eighth off
 * the whole pipeline's time per fact (`npm run bench -- w1`).
 */
export class KeyedRows<Row extends { readonly fact: { readonly key: string } }> {
  readonly rows: Array<Row> = []
  private byKey: Map<string, Row> | undefined

  /** The row of a key; it is looked for at `position` first, where it stood in the report before. */
  get(key: string, position: number): Row | undefined {
    const { byKey, rows } = this
    const likely = rows[position]
    if (likely !== undefined && likely.fact.key === key) return likely
    if (byKey !== undefined) return byKey.get(key)
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i] as Row
      if (row.fact.key === key) return row
    }
    return undefined
  }

  /** Adds the row of a key that has none. */
  add(row: Row): void {
    this.rows.push(row)
    if (this.byKey !== undefined) this.byKey.set(row.fact.key, row)
    else if (this.rows.length > maxScanned) this.byKey = new Map(this.rows.map((row) => [row.fact.key, row]))
  }

  /** Removes the first rows. */
  take(count: number): ReadonlyArray<Row> {
    const taken = this.rows.splice(0, count)
    if (this.byKey !== undefined) for (const row of taken) this.byKey.delete(row.fact.key)
    return taken
  }
}
