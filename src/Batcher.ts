/**
 * A batching engine: records go in without ever waiting, batches come out, one
 * write at a time.
 *
 * `MetadataBatcher` and `StatsBatcher` are two instances of it. Use it directly
 * for records of your own: say how they accumulate (`Accumulator`) and how a
 * batch is written.
 *
 * ```
 * offerUnsafe → Queue.dropping → collector fiber → Accumulator
 *                                                    ↓ capacity | scheduled | manual | shutdown
 *                                   written ← write (all or nothing) → failed: back into the Accumulator
 * ```
 *
 * **Details**
 *
 * - Offers are bounded by `capacity` records in the queue; what does not fit is
 *   dropped and counted. The accumulator is bounded by `maxPending`.
 * - The collector goes on folding while a write is under way or failing.
 * - A write that fails for a reason that can pass is retried with an
 *   exponential, jittered delay capped at `interval`, one attempt at a time,
 *   and logged once per change of state. There is no circuit breaker beside it:
 *   one attempt at a time under a capped backoff is what an open circuit with
 *   a probe would give.
 * - Rows the store rejects are found and discarded; the others are written.
 * - When the scope closes, the queue is drained and everything written, within
 *   `shutdownTimeout`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import type { PubsubError } from "./Pubsub.ts"
import type { StoreError, WriteResult } from "./Store.ts"

export { make } from "./internal/engine.ts"

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
 * `offered = dropped + queued + superseded + pending + inFlight + written + discarded`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Accounting {
  readonly offered: number
  /** Not taken: the queue was full, `maxPending` reached, or the batcher closed. */
  readonly dropped: number
  readonly queued: number
  /** Replaced by a newer record before a write, or older than the one held. */
  readonly superseded: number
  readonly pending: number
  readonly inFlight: number
  readonly written: number
  /** Taken and given up: rejected by the store, evicted, or unwritten at the end. */
  readonly discarded: number
}

/**
 * The account as an accumulator moves records in it.
 *
 * @category models
 * @since 0.1.0
 */
export type Ledger = { -readonly [Place in keyof Accounting]: number }

/**
 * One offer: `size` records travelling through the queue together.
 *
 * @category models
 * @since 0.1.0
 */
export interface Message {
  readonly size: number
  /** When it was added, in milliseconds since the epoch. The engine sets it, reading the clock once per turn of the event loop. */
  addedAt: number
  /** The span of the caller who added it, if that is sampled. While the message waits, the engine keeps no more than its ids. */
  span: Tracer.AnySpan | undefined
}

/**
 * One record of a batch, with the message that brought it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Row<out M extends Message> {
  readonly origin: M
}

/**
 * How records accumulate between two writes.
 *
 * **Details**
 *
 * Each operation is one synchronous step (a `Ref` update) that also moves its
 * records in the ledger, so that no record is ever between two places:
 *
 * - `fold`: every record of every message goes to `pending`, `superseded`,
 *   `dropped` or `discarded`; the engine has taken it from `queued`.
 * - `take`: at most `max` rows, the longest waiting first, from `pending` to
 *   `inFlight`.
 * - `restore`: rows whose write failed, from `inFlight` to `pending`, or to
 *   `superseded` where a newer record has come since.
 *
 * @category models
 * @since 0.1.0
 */
export interface Accumulator<in M, in out R> {
  readonly fold: (next: () => M | undefined) => Effect.Effect<void>
  readonly take: (max: number) => Effect.Effect<ReadonlyArray<R>>
  readonly restore: (rows: ReadonlyArray<R>) => Effect.Effect<void>
  /** When the longest waiting row was added, those in a write among them; read at scrape time. */
  readonly oldest: (writing: Iterable<R>) => number | undefined
}

/**
 * Settings shared by every batcher. Each is checked when the batcher is made;
 * nonsense is an `InvalidOptionError`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Rows per write. Default 500 (statistics: 1,024), as in the original. */
  readonly maxBatchSize?: number | undefined
  /** Time between scheduled flushes. Default 5 seconds (statistics: 1 second), as in the original. */
  readonly interval?: Duration.Input | undefined
  /** Records the queue holds. Default 5 × `maxBatchSize`, as in the original; at least `maxBatchSize`. */
  readonly capacity?: number | undefined
  /** Distinct keys (statistics: rows) waiting or being written. Default 50,000; at least `maxBatchSize`. */
  readonly maxPending?: number | undefined
  /** How long the close of the scope may take to write what is left. Default 15 seconds, as in the original. */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** After this a write counts as failed, its outcome unknown. Default 30 seconds; 0 turns it off. */
  readonly writeTimeout?: Duration.Input | undefined
  /** Writes under way at once. Default 1. The guard in SQL keeps newest-wins with more. */
  readonly writeConcurrency?: number | undefined
  /**
   * What becomes of a batch whose write failed for a reason that can pass:
   * `"requeue"` (default) keeps and retries it, `"discard"` counts and forgets
   * it, as the original does.
   */
  readonly onWriteFailure?: "requeue" | "discard" | undefined
  /**
   * Prefix of the metric names. Default `"agentapi"`; Coder's dashboards use
   * `"coderd_agentapi"`. Of two batchers of one kind in a process each needs its
   * own: under one prefix counters add up, but gauges show the later one.
   */
  readonly metricsPrefix?: string | undefined
}

/**
 * What makes a batcher out of the engine.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition<M extends Message, R extends Row<M>> {
  /** Names spans and annotates logs, for example `"MetadataBatcher"`. */
  readonly name: string
  /** Names metrics: `{metricsPrefix}_{kind}_…`. */
  readonly kind: string
  readonly options?: Options | undefined
  readonly defaults: {
    readonly maxBatchSize: number
    readonly interval: Duration.Input
    /** The share of `maxBatchSize` at which a flush is due before its time. */
    readonly flushAtShare: number
    readonly batchSizeBoundaries?: ReadonlyArray<number> | undefined
  }
  readonly accumulator: (ledger: Ledger, maxPending: number) => Effect.Effect<Accumulator<M, R>>
  /** Writes all rows that the store does not refuse. Must be safe to run again with the same rows. */
  readonly write: (rows: ReadonlyArray<R>) => Effect.Effect<WriteResult, StoreError>
  /** Tells others whose rows were written: once per flush, after its rows are committed. */
  readonly notification?:
    | {
        /** Where it is published, for spans. */
        readonly channel: string
        readonly encode: (agents: ReadonlyArray<string>) => ReadonlyArray<string>
        readonly publish: (payloads: ReadonlyArray<string>) => Effect.Effect<void, PubsubError>
      }
    | undefined
  /** The first `size` records of a message of which the queue has no room for all. */
  readonly truncate: (message: M, size: number) => M
  /** The agent a message came from. */
  readonly agentOf: (message: M) => string
  /** What tells a row from the others of its agent, for logs: never its value. */
  readonly keyOf: (row: R) => string
  /** Whether a key comes again with a later record. Default `true`; rows that were refused are then written apart. */
  readonly keysRecur?: boolean | undefined
}

/**
 * A running batcher.
 *
 * @category models
 * @since 0.1.0
 */
export interface Batcher<in M> {
  /** Queues what there is room for and says how many records that was. Never waits, never fails. */
  readonly offerUnsafe: (message: M) => number
  /**
   * Writes everything accepted so far, whatever the interval. Returns when all
   * of it is written, or accounted for: discarded, or back in `pending` because
   * the store is unavailable or has refused too many rows to search for at once.
   */
  readonly flush: Effect.Effect<void>
  readonly accounting: Effect.Effect<Accounting>
}

/**
 * An option no batcher can run with.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOptionError extends Schema.Error<InvalidOptionError>(
  "effect-metadata-batcher/Batcher/InvalidOptionError"
)({
  _tag: Schema.tag("InvalidOptionError"),
  option: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    return `option "${this.option}" must be ${this.expected}, got ${this.actual}`
  }
}
