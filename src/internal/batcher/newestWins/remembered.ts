// Two hashes of 32 bits with different multipliers, which is what JavaScript
// computes without allocating: FNV-1a and the multiplier of MurmurHash3.
const hashWith = (parts: ReadonlyArray<string>, seed: number, multiplier: number): number => {
  let hash = seed
  for (const part of parts) {
    for (let i = 0; i < part.length; i++) hash = Math.imul(hash ^ part.charCodeAt(i), multiplier)
    // Where one part ends matters: "ab", "c" is not "a", "bc".
    hash = Math.imul(hash ^ part.length, multiplier) ^ (hash >>> 15)
  }
  return hash
}

const low = (content: ReadonlyArray<string>) => hashWith(content, 0x811c9dc5, 0x01000193)
const high = (content: ReadonlyArray<string>) => hashWith(content, 0x9747b28c, 0x5bd1e995)

/** Up to this many keys, looking at each is faster than hashing the one that is looked for. */
const maxScanned = 16

/**
 * What was last written of a group: of each key when, and 64 bits that tell its
 * content from another. In arrays side by side, because most reports list their
 * keys in one order, and a number in an array takes eight bytes.
 */
export class Remembered {
  private readonly keys: Array<string> = []
  private readonly ats: Array<number> = []
  private readonly lows: Array<number> = []
  private readonly highs: Array<number> = []
  /** Where each key stands, once there are many. */
  private index: Map<string, number> | undefined = undefined

  get size(): number {
    return this.keys.length
  }

  /** When the key was last written, or undefined. */
  at(key: string, likely: number): number | undefined {
    return this.ats[this.find(key, likely)]
  }

  /** Whether this is what was last written under the key. */
  isSame(key: string, likely: number, content: ReadonlyArray<string>): boolean {
    const position = this.find(key, likely)
    return position !== -1 && this.lows[position] === low(content) && this.highs[position] === high(content)
  }

  has(key: string): boolean {
    return this.find(key, 0) !== -1
  }

  set(key: string, likely: number, content: ReadonlyArray<string>, at: number): void {
    const found = this.find(key, likely)
    const position = found === -1 ? this.keys.length : found
    this.keys[position] = key
    this.index?.set(key, position)
    this.ats[position] = at
    this.lows[position] = low(content)
    this.highs[position] = high(content)
  }

  /** Forgets a key; answers whether it was known. */
  delete(key: string): boolean {
    return this.deleteAt(this.find(key, 0))
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

  private find(key: string, likely: number): number {
    if (this.keys[likely] === key) return likely
    if (this.keys.length <= maxScanned) return this.keys.indexOf(key)
    this.index ??= new Map(this.keys.map((known, position) => [known, position]))
    return this.index.get(key) ?? -1
  }
}
