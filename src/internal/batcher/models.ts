import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"

/**
 * Why a flush happened: enough rows for a batch, the interval's end, the
 * scope's close, or a call of `flush`.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason = "capacity" | "scheduled" | "shutdown" | "manual"

/**
 * Where every record that was ever offered is now. At any instant
 * `offered = dropped + queued + superseded + unchanged + pending + inFlight + refused + written + discarded`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Accounting {
  readonly offered: number
  /** Not taken: no room, not what it should be, or the batcher has closed. */
  readonly dropped: number
  readonly queued: number
  /** Replaced by a newer record before a write, older than the one held, or older than what the store holds. */
  readonly superseded: number
  /** Said what was last written, and replaced while it waited for its turn (option `unchanged`). */
  readonly unchanged: number
  readonly pending: number
  readonly inFlight: number
  /** Refused by the store. They wait apart and are tried again. */
  readonly refused: number
  /** Rows that the store changed. */
  readonly written: number
  /** Taken and given up: refused for too long, evicted, forgotten, without a row to update, or unwritten at the end. */
  readonly discarded: number
}

/**
 * What became of the rows that waited when `flush` was called. The numbers add
 * up to how many there were.
 *
 * @category models
 * @since 0.1.0
 */
export interface Flushed {
  readonly written: number
  /** The store held something newer. */
  readonly superseded: number
  /** Left for later, because they say what was last written (option `unchanged`). */
  readonly unchanged: number
  /** Refused by the store. They wait apart and are tried again. */
  readonly refused: number
  readonly discarded: number
  /** Waiting again: the write failed, or other rows had to be searched first. */
  readonly unwritten: number
}

/**
 * Whether the store takes writes, and since when it does not.
 *
 * @category models
 * @since 0.1.0
 */
export type Status =
  | { readonly _tag: "Available" }
  | { readonly _tag: "Unavailable"; readonly since: DateTime.Utc; readonly error: string }

/**
 * A record that was taken and is given up, with the reason.
 *
 * - `refused`: the store refused it for an hour.
 * - `evicted`: room was needed for newer records.
 * - `missing`: there was no row to update.
 * - `failed`: its write failed, and `onWriteFailure` is `"discard"`.
 * - `unwritten`: the batcher closed before it could be written.
 *
 * @category models
 * @since 0.1.0
 */
export interface Discarded<out A> {
  readonly group: string
  readonly record: A
  readonly reason: "refused" | "evicted" | "missing" | "failed" | "unwritten"
  /** What the store said, without values; empty where it said nothing. */
  readonly why: string
}

/**
 * Settings shared by every batcher. Each is checked when the batcher is made;
 * nonsense is an `InvalidOptionError`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Rows per batch. Default 500 (statistics: 1,024), as in Coder 2.31. More gain
   * little: batches of 2,000 or 5,000 rows were within 10 % of 500.
   */
  readonly maxBatchSize?: number | undefined
  /** Time between scheduled flushes. Default 5 seconds (statistics: 1 second), as in Coder 2.31. */
  readonly interval?: Duration.Input | undefined
  /**
   * Records the queue holds before whoever adds folds them. Default
   * 5 × `maxBatchSize`, as in Coder 2.31; at least `maxBatchSize`.
   */
  readonly capacity?: number | undefined
  /** Distinct keys (statistics: rows) that are kept until they are written. Default 50,000; at least `maxBatchSize`. */
  readonly maxPending?: number | undefined
  /**
   * Bytes that are kept until they are written, counted as two per UTF-16 unit.
   * Default 64 MiB. What is queued, being written and refused counts as well. At
   * the bound a known key still takes its newer value, if that is not larger.
   * Costs an addition per fact.
   *
   * A text counts with its own length. One that was cut from a longer text
   * (`slice`, `split`, `trim`) keeps all of that in memory: V8 does not copy it.
   * Copy it yourself where the longer one is much longer.
   */
  readonly maxPendingBytes?: number | undefined
  /** Bytes per statement; a batch that has more is written by several. Default 4 MiB. */
  readonly maxBatchBytes?: number | undefined
  /**
   * How long the close of the scope may take to write what is left. Default 15
   * seconds, as in Coder 2.31. With 0 each batch is tried once, without pauses,
   * for up to `writeTimeout`, and no notification is awaited.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** After this a statement counts as failed, its outcome unknown. Default 30 seconds; 0 turns it off. */
  readonly writeTimeout?: Duration.Input | undefined
  /** Writes under way at once. Default 1. The guard in SQL keeps newest-wins with more. */
  readonly writeConcurrency?: number | undefined
  /**
   * What becomes of a batch whose write failed for a reason that can pass:
   * `"requeue"` (default) keeps and retries it, `"discard"` counts and forgets
   * it, as Coder 2.31 does.
   */
  readonly onWriteFailure?: "requeue" | "discard" | undefined
  /**
   * Write a record that says what was last written under its key at most this
   * often. It waits until so long after the last write, unless a different one
   * comes, and nobody is told of it. Off by default.
   *
   * What it saves in the database is paid in freshness and memory: the time in
   * the table may be this much older, plus one `interval`, and what was written
   * is remembered in at most 128 bytes per key, for at most `maxPending` keys.
   */
  readonly unchanged?: Duration.Input | undefined
  /**
   * A record dated further ahead of the clock than this counts as collected when
   * it is added. Default 1 minute; `Infinity` turns it off. Replicas whose clocks
   * differ by more can overwrite newer records of each other. `TestClock` begins
   * in 1970, so that in a test every record of today is dated ahead.
   */
  readonly maxAhead?: Duration.Input | undefined
  /** Names spans and annotates logs. Default: the name of the batcher's definition. */
  readonly name?: string | undefined
  /**
   * Prefix of the metric names. Default `"agentapi"`; dashboards of Coder 2.31 use
   * `"coderd_agentapi"`. Of two batchers of one kind in a process each needs its
   * own: under one prefix counters add up, but gauges show the later one.
   */
  readonly metricsPrefix?: string | undefined
}
