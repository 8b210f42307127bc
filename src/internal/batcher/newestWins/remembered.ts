/** Up to this many keys, looking at each is faster than hashing the one that is looked for. */
const maxScanned = 16

/**
 * What was last written of a group: of each key when, and 64 bits that tell its
 * content from another. In arrays side by side, because a number in an array
 * takes eight bytes.
 */
export class Remembered {
  private readonly keys: Array<string> = []
  private readonly ats: Array<number> = []
  private readonly lows: Array<number> = []
  private readonly highs: Array<number> = []
  /** Where each key stands, once there are many. */
  private index: Map<string, number> | undefined = undefined
  // Keys are asked for in the order in which reports list them, so the next one is likely behind the last.
  private next = 0
  private low = 0
  private high = 0

  get size(): number {
    return this.keys.length
  }

  /** When the key was last written, or undefined. */
  at(key: string): number | undefined {
    return this.ats[this.find(key)]
  }

  /** When the key was last written, if this is what was written then. */
  atIfSame(key: string, content: ReadonlyArray<string>): number | undefined {
    const position = this.find(key)
    if (position === -1) return undefined
    this.hash(content)
    return this.lows[position] === this.low && this.highs[position] === this.high
      ? this.ats[position]
      : undefined
  }

  /** Remembers a key, a new one only if there is room; answers whether it is a new one. */
  set(key: string, content: ReadonlyArray<string>, at: number, hasRoom: boolean): boolean {
    const found = this.find(key)
    if (found === -1 && !hasRoom) return false
    const position = found === -1 ? this.keys.length : found
    this.hash(content)
    this.keys[position] = key
    this.index?.set(key, position)
    this.ats[position] = at
    this.lows[position] = this.low
    this.highs[position] = this.high
    return found === -1
  }

  /** Forgets a key; answers whether it was known. */
  delete(key: string): boolean {
    return this.deleteAt(this.find(key))
  }

  /** Forgets what was written before; answers how many keys that were. */
  deleteBefore(at: number): number {
    let deleted = 0
    for (let position = this.keys.length - 1; position >= 0; position--) {
      if ((this.ats[position] as number) <= at && this.deleteAt(position)) deleted += 1
    }
    return deleted
  }

  private deleteAt(position: number): boolean {
    if (position === -1) return false
    this.index?.delete(this.keys[position] as string)
    this.moveLast(this.keys, position)
    for (const column of [this.ats, this.lows, this.highs]) this.moveLast(column, position)
    if (position < this.keys.length) this.index?.set(this.keys[position] as string, position)
    return true
  }

  /** Takes the last of a column to a place that has become free. */
  private moveLast<A>(column: Array<A>, position: number): void {
    const last = column.pop() as A
    if (position < column.length) column[position] = last
  }

  private find(key: string): number {
    const position = this.keys[this.next] === key ? this.next : this.search(key)
    if (position !== -1) this.next = position + 1
    return position
  }

  private search(key: string): number {
    if (this.keys.length <= maxScanned) return this.keys.indexOf(key)
    this.index ??= new Map(this.keys.map((known, position) => [known, position]))
    return this.index.get(key) ?? -1
  }

  /**
   * Two hashes of 32 bits with different multipliers, which is what JavaScript
   * computes without allocating: FNV-1a and the multiplier of MurmurHash3.
   */
  private hash(content: ReadonlyArray<string>): void {
    let low = 0x811c9dc5
    let high = 0x9747b28c
    for (const part of content) {
      for (let i = 0; i < part.length; i++) {
        const unit = part.charCodeAt(i)
        low = Math.imul(low ^ unit, 0x01000193)
        high = Math.imul(high ^ unit, 0x5bd1e995)
      }
      // Where one part ends matters: "ab", "c" is not "a", "bc".
      low = Math.imul(low ^ part.length, 0x01000193) ^ (low >>> 15)
      high = Math.imul(high ^ part.length, 0x5bd1e995) ^ (high >>> 15)
    }
    this.low = low
    this.high = high
  }
}
