/** What was last written under a key: when, and 64 bits that tell its content from another. */
export interface Remembered {
  readonly at: number
  readonly low: number
  readonly high: number
}

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

export const remember = (content: ReadonlyArray<string>, at: number): Remembered => ({
  at,
  low: hashWith(content, 0x811c9dc5, 0x01000193),
  high: hashWith(content, 0x9747b28c, 0x5bd1e995)
})

export const isSame = (remembered: Remembered, content: ReadonlyArray<string>): boolean =>
  remembered.low === hashWith(content, 0x811c9dc5, 0x01000193) &&
  remembered.high === hashWith(content, 0x9747b28c, 0x5bd1e995)
