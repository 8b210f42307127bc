import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Accumulate } from "./accumulator.ts"
import type { Discarded, Options } from "./models.ts"
import type { WriteResult } from "./writeResult.ts"

/**
 * How others are told whose rows were written.
 *
 * @category models
 * @since 0.1.0
 */
export interface Announce {
  /** Where it is published, for spans. */
  readonly channel: string
  /** The payloads that name these groups. */
  readonly encode: (groups: ReadonlyArray<string>) => ReadonlyArray<string>
  /** A failure is retried until it succeeds; the write is not repeated. */
  readonly publish: (payloads: ReadonlyArray<string>) => Effect.Effect<void, unknown>
}

/**
 * What makes a batcher: how its records wait and how a batch of them is
 * written.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition<in out A> {
  /** Names spans and annotates logs, for example `"DeviceBatcher"`. */
  readonly name: string
  /** Names metrics: `{metricsPrefix}_{kind}_…`. Default: the name in lower case. */
  readonly kind?: string | undefined
  readonly options?: Options | undefined
  readonly defaults?:
    | {
        readonly maxBatchSize?: number | undefined
        readonly interval?: Duration.Input | undefined
        /** The share of `maxBatchSize` at which a flush is due before its time, above 0 and at most 1. Default 1. */
        readonly flushAtShare?: number | undefined
        /** Upper bounds of the buckets in which rows per batch are counted. */
        readonly batchSizeBoundaries?: ReadonlyArray<number> | undefined
      }
    | undefined
  /** How records wait: `newestWins(…)` or `appendOnly(…)`. */
  readonly accumulate: Accumulate<A>
  /**
   * Writes records, and may be given the same ones again. `groups` names the
   * group of each. Succeeding without a result says that all were written.
   *
   * A failure whose `reason` is tagged `Unavailable` is an outage. Any other one
   * may be a record's fault: the batcher finds out by writing fewer at a time.
   */
  readonly write: (
    records: ReadonlyArray<A>,
    groups: ReadonlyArray<string>
  ) => Effect.Effect<WriteResult | void, unknown>
  readonly announce?: Announce | undefined
  /**
   * Is given the records that are given up, in batches of at most 500. It never
   * holds up a write; of more than `maxPending` waiting for it the oldest are
   * left out and counted in a warning.
   */
  readonly onDiscarded?: ((records: ReadonlyArray<Discarded<A>>) => Effect.Effect<void>) | undefined
}
