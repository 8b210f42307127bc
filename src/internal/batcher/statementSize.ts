/**
 * Batches written without trouble before larger statements are tried again;
 * twice as many after each vain try. What was never tried in vain grows quickly:
 * a store that did not answer for minutes has had its statements halved to one
 * row, and is well again all the same.
 */
const firstPatience = 2
const maxPatience = 256

/** How many rows a statement may have, as the store has shown. */
export interface StatementSize {
  /** Rows of the next statement at most. */
  readonly rows: () => number
  /** A statement was too much, and its halves passed: larger ones are not tried for a while. */
  readonly passed: (rows: number) => void
  /** A statement was too much, and it is not known what passes. */
  readonly halve: (rows: number) => void
}

/** How many rows a statement may have: fewer after one was too much for the store, more again with time. */
export interface AdaptiveSize extends StatementSize {
  /** A batch was written, and no statement was too much. */
  readonly succeeded: () => void
  /** Whether statements are smaller than batches now. */
  readonly isReduced: () => boolean
}

export const make = (maxBatchSize: number): AdaptiveSize => {
  let limit = maxBatchSize
  let patience = firstPatience
  let untroubled = 0
  let hasGrown = false

  const reduceTo = (rows: number): void => {
    untroubled = 0
    if (rows >= limit) return
    limit = Math.max(1, rows)
    if (hasGrown) patience = Math.min(2 * patience, maxPatience)
    hasGrown = false
  }

  return {
    rows: () => limit,
    passed: reduceTo,
    halve: (rows) => reduceTo(rows >>> 1),
    succeeded: () => {
      if (limit === maxBatchSize) return
      untroubled += 1
      if (untroubled < patience) return
      untroubled = 0
      limit = Math.min(maxBatchSize, 2 * limit)
      hasGrown = true
      if (limit === maxBatchSize) patience = firstPatience
    },
    isReduced: () => limit < maxBatchSize
  }
}

/** The positions of a batch in statements that are neither too long nor too large. */
export const cutBySize = (batch: {
  readonly size: number
  readonly bytesOf: (position: number) => number
  readonly maxBytes: number
  readonly statementSize: StatementSize
}): ReadonlyArray<ReadonlyArray<number>> => {
  const { bytesOf, maxBytes, size } = batch
  const rows = batch.statementSize.rows()
  const parts: Array<Array<number>> = []
  let part: Array<number> = []
  let bytes = 0
  for (let position = 0; position < size; position++) {
    const more = bytesOf(position)
    if (part.length > 0 && (part.length >= rows || bytes + more > maxBytes)) {
      parts.push(part)
      part = []
      bytes = 0
    }
    part.push(position)
    bytes += more
  }
  parts.push(part)
  return parts
}
