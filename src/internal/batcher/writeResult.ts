/**
 * A row that the store refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface Refusal {
  /** Where the row stood in what the store was given, from 0. */
  readonly position: number
  /** Why, for a log: `SQLSTATE 23514, constraint "cpu_is_number"`. It never holds a value. */
  readonly why: string
}

/**
 * What became of the rows of a write that succeeded. Each row is in one place:
 * `changed + superseded.length + missing.length + refused.length` is the number
 * of rows given.
 *
 * @category models
 * @since 0.1.0
 */
export interface WriteResult {
  /** How many rows were written. */
  readonly changed: number
  /** Positions of rows that changed nothing, because the store holds a newer fact. */
  readonly superseded: ReadonlyArray<number>
  /** Positions of rows that were passed over, because only rows that exist are updated. */
  readonly missing: ReadonlyArray<number>
  /** Rows that the store refused. All the others were written. */
  readonly refused: ReadonlyArray<Refusal>
}

const none: ReadonlyArray<never> = []

/**
 * The result of a write that wrote every row it was given.
 *
 * @category constructors
 * @since 0.1.0
 */
export const allChanged = (count: number): WriteResult => ({
  changed: count,
  superseded: none,
  missing: none,
  refused: none
})
