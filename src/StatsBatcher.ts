/**
 * Takes agents' connection statistics without ever making one wait and appends
 * them to the `Store` in batches. The sibling of `MetadataBatcher` for records
 * that are all kept.
 *
 * **Details**
 *
 * - A batch is written every `interval` (1 second), and before that once the
 *   buffer is 80 % full (820 of 1,024 rows).
 * - A batch whose write failed stays in the buffer, up to `maxPending` rows; at
 *   the bound the oldest go first, counted as discarded.
 * - Each row gets its id when it is added, so that a write whose outcome is
 *   unknown can be repeated without a row being stored twice.
 *
 * **Example** (Appending a report)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { AgentId, Pubsub, StatsBatcher, Store } from "effect-metadata-batcher"
 * import * as DateTime from "effect/DateTime"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Schema from "effect/Schema"
 *
 * const id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
 *
 * const program = Effect.gen(function* () {
 *   const batcher = yield* StatsBatcher.StatsBatcher
 *   yield* batcher.add({
 *     createdAt: yield* DateTime.now,
 *     agentId: Schema.decodeSync(AgentId.AgentId)(id),
 *     userId: id,
 *     templateId: id,
 *     workspaceId: id,
 *     connectionsByProto: { ssh: 1 },
 *     connectionCount: 1n,
 *     rxPackets: 10n,
 *     rxBytes: 1_000n,
 *     txPackets: 20n,
 *     txBytes: 9_007_199_254_740_993n,
 *     sessionCountVSCode: 0n,
 *     sessionCountJetBrains: 0n,
 *     sessionCountReconnectingPTY: 0n,
 *     sessionCountSSH: 1n,
 *     connectionMedianLatencyMs: 12.5
 *   })
 *   yield* batcher.flush
 *   return yield* batcher.accounting
 * })
 *
 * const Batcher = StatsBatcher.layer().pipe(Layer.provide(Store.layerMemory))
 *
 * const { written } = await Effect.runPromise(Effect.provide(program, Batcher))
 * assert.equal(written, 1)
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import type { AgentStats, AgentStatsRow } from "./AgentStats.ts"
import * as Batcher from "./Batcher.ts"
import { statsBatchSizeBoundaries } from "./BatcherMetrics.ts"
import * as appendOnly from "./internal/appendOnly.ts"
import { sampledSpan } from "./internal/flushSpan.ts"
import { Store } from "./Store.ts"

/**
 * Settings of a `StatsBatcher`; see `Batcher.Options` for each one. Defaults
 * that differ: `maxBatchSize` 1,024 and `interval` 1 second, as in the original.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Batcher.Options {}

/**
 * The batcher of connection statistics.
 *
 * @category services
 * @since 0.1.0
 */
export class StatsBatcher extends Context.Service<
  StatsBatcher,
  {
    /**
     * Adds one report. Never waits and never fails: what there is no room for is
     * dropped, and what is no report is discarded, both counted and warned about.
     */
    readonly add: (stats: AgentStats) => Effect.Effect<void>
    /** `add` outside of Effect: synchronous, and gives back whether the report was queued, as 1 or 0. */
    readonly addUnsafe: (stats: AgentStats) => number
    /**
     * Writes everything accepted so far. Returns when all of it is written, or
     * accounted for: discarded, or back in `pending` because the store is
     * unavailable or has refused too many rows to search for at once.
     */
    readonly flush: Effect.Effect<void>
    /** Where every report that was ever offered is now; also after the batcher has closed. */
    readonly accounting: Effect.Effect<Batcher.Accounting>
  }
>()("effect-metadata-batcher/StatsBatcher") {}

/**
 * Makes a batcher that runs until the scope closes, and then writes what is
 * left.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options | undefined
): Effect.fn.Return<StatsBatcher["Service"], Batcher.InvalidOptionError, Store | Scope.Scope> {
  const store = yield* Store

  const batcher = yield* Batcher.make<appendOnly.Report, appendOnly.Row>({
    name: "StatsBatcher",
    kind: "stats",
    options,
    defaults: {
      maxBatchSize: 1024,
      interval: "1 second",
      flushAtShare: 0.8,
      batchSizeBoundaries: statsBatchSizeBoundaries
    },
    accumulator: appendOnly.make,
    write: (rows) => store.batchInsertStats(rows.map((row) => row.stats)),
    truncate: (report) => report,
    agentOf: (report) => report.stats?.agentId ?? "unknown",
    keyOf: (row) => row.stats.id,
    keysRecur: false
  })

  const offer = (stats: AgentStats, span: Tracer.AnySpan | undefined): number =>
    batcher.offerUnsafe({
      stats: toRow(stats),
      size: 1,
      addedAt: 0,
      span
    })

  return StatsBatcher.of({
    add: (stats) => Effect.withFiberSucceed((fiber) => void offer(stats, sampledSpan(fiber))),
    addUnsafe: (stats) => offer(stats, undefined),
    flush: batcher.flush,
    accounting: batcher.accounting
  })
})

/**
 * Provides a batcher over the `Store` in the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options | undefined
): Layer.Layer<StatsBatcher, Batcher.InvalidOptionError, Store> => Layer.effect(StatsBatcher, make(options))

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options>
): Layer.Layer<StatsBatcher, Batcher.InvalidOptionError | Config.ConfigError, Store> =>
  Layer.effect(StatsBatcher, Effect.flatMap(Config.unwrap(config), make))

/** A copy, since whoever added the report may use its object again. */
const toRow = (stats: AgentStats): AgentStatsRow | undefined => {
  try {
    return {
      ...stats,
      connectionsByProto: { ...stats.connectionsByProto },
      createdAt: toMicroseconds(stats.createdAt),
      // One that was given makes a report that is sent again harmless.
      id: (stats as Partial<AgentStatsRow>).id ?? globalThis.crypto.randomUUID()
    }
  } catch {
    // Not a report: types do not bind JavaScript. It is counted as discarded, for `add` never fails.
    return undefined
  }
}

/** What PostgreSQL keeps of a time. */
const toMicroseconds = (time: DateTime.Utc): DateTime.Utc =>
  Number.isInteger(time.epochMilliseconds)
    ? time
    : DateTime.mapEpochMillis(time, (milliseconds) => Math.trunc(milliseconds * 1000) / 1000)
