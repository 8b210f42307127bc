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
import * as Engine from "./internal/batcher/engine.ts"
import { sampledSpan } from "./internal/batcher/flushSpan.ts"
import { Store } from "./Store.ts"

/**
 * Settings of a `StatsBatcher`; see `Batcher.Options` for each one. Defaults
 * that differ: `maxBatchSize` 1,024 and `interval` 1 second, as in `batchstats` of
 * Coder 2.31.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Batcher.Options {
  /** Is given the reports that are given up, in batches of at most 500. See `Batcher.Definition`. */
  readonly onDiscarded?: ((reports: ReadonlyArray<DiscardedStats>) => Effect.Effect<void>) | undefined
}

/**
 * A report that was taken and is given up, with the reason. `Batcher.Discarded`
 * says what each reason means.
 *
 * @category models
 * @since 0.1.0
 */
export interface DiscardedStats {
  readonly stats: AgentStatsRow
  readonly reason: Batcher.Discarded<AgentStatsRow>["reason"]
  /** What the store said, without values; empty where it said nothing. */
  readonly why: string
}

/**
 * A report to add. Whoever may send the same report again gives it an `id`, a
 * UUID, so that it is stored once. By default each report gets a new one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report extends AgentStats {
  readonly id?: string | undefined
}

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
     * Adds one report. Never waits and never fails. Where there is no room the
     * oldest report gives way, counted as discarded; what is no report is
     * dropped, counted and warned about.
     */
    readonly add: (stats: Report) => Effect.Effect<void>
    /** `add` outside of Effect: synchronous, and gives back whether the report was taken, as 1 or 0. */
    readonly addUnsafe: (stats: Report) => number
    /**
     * Writes all that was accepted so far, whatever the interval, and says what
     * became of it. During an outage it waits for the next attempt. Whoever
     * calls while a flush is under way shares the next one.
     */
    readonly flush: Effect.Effect<Batcher.Flushed>
    /** Where every report that was ever offered is now; also after the batcher has closed. */
    readonly accounting: Effect.Effect<Batcher.Accounting>
    /** Whether the store takes writes, and since when it does not. */
    readonly status: Effect.Effect<Batcher.Status>
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
  options: Options = {}
): Effect.fn.Return<StatsBatcher["Service"], Batcher.InvalidOptionError, Store | Scope.Scope> {
  const store = yield* Store

  const { onDiscarded, ...shared } = options

  const engine = yield* Engine.make<AgentStatsRow>({
    name: "StatsBatcher",
    kind: "stats",
    options: shared,
    // Those of Coder 2.31: 1,024 rows, due at 80 %, 1 second.
    defaults: {
      maxBatchSize: 1024,
      interval: "1 second",
      flushAtShare: 0.8,
      batchSizeBoundaries: statsBatchSizeBoundaries
    },
    accumulate,
    write: (rows) => store.batchInsertStats(rows),
    onDiscarded: onDiscarded && ((discarded) => onDiscarded(discarded.map(toDiscardedStats)))
  })

  const offer = (stats: Report, span: Tracer.AnySpan | undefined): number => {
    const row = toRow(stats)
    return engine.offerUnsafe(row?.agentId ?? "unknown", [row as AgentStatsRow], span)
  }

  return StatsBatcher.of({
    add: (stats) => Effect.withFiberSucceed((fiber) => void offer(stats, sampledSpan(fiber))),
    addUnsafe: (stats) => offer(stats, undefined),
    flush: engine.flush,
    accounting: engine.accounting,
    status: engine.status
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
  config: Config.Wrap<Omit<Options, "onDiscarded">>,
  options?: Pick<Options, "onDiscarded"> | undefined
): Layer.Layer<StatsBatcher, Batcher.InvalidOptionError | Config.ConfigError, Store> =>
  Layer.effect(
    StatsBatcher,
    Effect.flatMap(Config.unwrap(config), (read) => make({ ...read, ...options }))
  )

/** A copy, since whoever added the report may use its object again. Undefined for what is no report. */
const toRow = (stats: Report): AgentStatsRow | undefined => {
  try {
    return {
      ...stats,
      connectionsByProto: { ...stats.connectionsByProto },
      createdAt: toMicroseconds(stats.createdAt),
      id: stats.id ?? globalThis.crypto.randomUUID()
    }
  } catch {
    return undefined
  }
}

/** Nine counts of eight bytes, five ids of 36 characters, a time and a latency: about 500 bytes, and the protocols. */
const bytesOf = (stats: AgentStatsRow): number => {
  let bytes = 500
  for (const protocol in stats.connectionsByProto) bytes += 2 * protocol.length + 8
  return bytes
}

const accumulate = Batcher.appendOnly<AgentStatsRow>({
  group: (stats) => stats.agentId,
  key: (stats) => stats.id,
  bytes: bytesOf
})

const toDiscardedStats = ({ reason, record, why }: Batcher.Discarded<AgentStatsRow>): DiscardedStats => ({
  stats: record,
  reason,
  why
})

/** What PostgreSQL keeps of a time. */
const toMicroseconds = (time: DateTime.Utc): DateTime.Utc =>
  Number.isInteger(time.epochMilliseconds)
    ? time
    : DateTime.mapEpochMillis(time, (milliseconds) => Math.trunc(milliseconds * 1000) / 1000)
