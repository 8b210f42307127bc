/**
 * Takes facts from thousands of agents without ever making one wait, keeps the
 * newest per agent and key, writes them to the `Store` in batches, and tells
 * every replica over the `Pubsub` which agents changed.
 *
 * **Example** (Providing the batcher and adding facts)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { AgentId, MetadataBatcher, Pubsub, Store } from "effect-metadata-batcher"
 * import * as DateTime from "effect/DateTime"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Schema from "effect/Schema"
 *
 * const agentId = Schema.decodeSync(AgentId.AgentId)("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
 *
 * const program = Effect.gen(function* () {
 *   const batcher = yield* MetadataBatcher.MetadataBatcher
 *   const collectedAt = yield* DateTime.now
 *   yield* batcher.add(agentId, [
 *     { key: "cpu", value: "12%", error: "", collectedAt },
 *     { key: "disk", value: "80%", error: "", collectedAt }
 *   ])
 *   yield* batcher.flush
 *   return yield* batcher.accounting
 * })
 *
 * const Batcher = MetadataBatcher.layer({ interval: "2 seconds" }).pipe(
 *   Layer.provide([Store.layerMemory, Pubsub.layerMemory])
 * )
 *
 * const { written } = await Effect.runPromise(Effect.provide(program, Batcher))
 * assert.equal(written, 2)
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import type { AgentId } from "./AgentId.ts"
import * as AgentIdChunks from "./AgentIdChunks.ts"
import * as Batcher from "./Batcher.ts"
import { sampledSpan } from "./internal/flushSpan.ts"
import * as newestWins from "./internal/newestWins.ts"
import type { Metadata, MetadataBatch } from "./Metadata.ts"
import { Pubsub } from "./Pubsub.ts"
import { Store } from "./Store.ts"

/**
 * The channel on which changed agents are announced, as `AgentIdChunks`. The
 * original's name, so that both understand each other.
 *
 * @category constants
 * @since 0.1.0
 */
export const metadataBatchChannel = "workspace_agent_metadata_batch"

/**
 * Settings of a `MetadataBatcher`; see `Batcher.Options` for each one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Batcher.Options {}

/**
 * The batcher of agent metadata.
 *
 * @category services
 * @since 0.1.0
 */
export class MetadataBatcher extends Context.Service<
  MetadataBatcher,
  {
    /**
     * Adds the facts of one report. Never waits and never fails: what there is
     * no room for is dropped, counted and warned about. Do not change the array
     * or its facts afterwards; they are kept, not copied.
     */
    readonly add: (agentId: AgentId, facts: ReadonlyArray<Metadata>) => Effect.Effect<void>
    /**
     * `add` outside of Effect, for hot paths: synchronous, and gives back how
     * many of the facts were queued.
     */
    readonly addUnsafe: (agentId: AgentId, facts: ReadonlyArray<Metadata>) => number
    /**
     * Adds facts given as parallel arrays. Arrays of unequal length are an
     * `InvalidAddError`, and nothing is added.
     */
    readonly addColumns: (agentId: AgentId, columns: Columns) => Effect.Effect<void, InvalidAddError>
    /**
     * Writes everything accepted so far. Returns when all of it is written, or
     * accounted for: discarded, or back in `pending` because the store is
     * unavailable or has refused too many rows to search for at once.
     */
    readonly flush: Effect.Effect<void>
    /** Where every fact that was ever offered is now; also after the batcher has closed. */
    readonly accounting: Effect.Effect<Batcher.Accounting>
  }
>()("effect-metadata-batcher/MetadataBatcher") {}

/**
 * Facts as parallel arrays.
 *
 * @category models
 * @since 0.1.0
 */
export interface Columns {
  readonly keys: ReadonlyArray<string>
  readonly values: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
  readonly collectedAt: ReadonlyArray<DateTime.Utc>
}

/**
 * The arrays given to `addColumns` differ in length.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidAddError extends Schema.Error<InvalidAddError>(
  "effect-metadata-batcher/MetadataBatcher/InvalidAddError"
)({
  _tag: Schema.tag("InvalidAddError"),
  keys: Schema.Number,
  values: Schema.Number,
  errors: Schema.Number,
  collectedAt: Schema.Number
}) {
  override get message(): string {
    return `columns differ in length: keys ${this.keys}, values ${this.values}, errors ${this.errors}, collectedAt ${this.collectedAt}`
  }
}

/**
 * Makes a batcher that runs until the scope closes, and then writes what is
 * left.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options | undefined
): Effect.fn.Return<MetadataBatcher["Service"], Batcher.InvalidOptionError, Store | Pubsub | Scope.Scope> {
  const store = yield* Store
  const pubsub = yield* Pubsub

  const batcher = yield* Batcher.make<newestWins.Report, newestWins.Row>({
    name: "MetadataBatcher",
    kind: "metadata",
    options,
    // The original's: 500 rows, 5 seconds.
    defaults: { maxBatchSize: 500, interval: "5 seconds", flushAtShare: 1 },
    accumulator: newestWins.make,
    write: (rows) => store.batchUpdateMetadata(toBatch(rows)),
    notification: {
      channel: metadataBatchChannel,
      encode: (agents) => AgentIdChunks.encode(agents as ReadonlyArray<AgentId>),
      publish: (payloads) => pubsub.publish(metadataBatchChannel, payloads)
    },
    truncate: (report, size) => ({ ...report, size, facts: report.facts.slice(0, size) }),
    agentOf: (report) => report.agentId,
    keyOf: (row) => row.fact.key
  })

  const offer = (
    agentId: AgentId,
    facts: ReadonlyArray<Metadata>,
    span: Tracer.AnySpan | undefined
  ): number =>
    batcher.offerUnsafe({ agentId, facts, size: Array.isArray(facts) ? facts.length : 0, addedAt: 0, span })

  const add = (agentId: AgentId, facts: ReadonlyArray<Metadata>): Effect.Effect<void> =>
    Effect.withFiberSucceed((fiber) => void offer(agentId, facts, sampledSpan(fiber)))

  return MetadataBatcher.of({
    add,
    addUnsafe: (agentId, facts) => offer(agentId, facts, undefined),
    addColumns: (agentId, columns) => Effect.flatMap(fromColumns(columns), (facts) => add(agentId, facts)),
    flush: batcher.flush,
    accounting: batcher.accounting
  })
})

/**
 * Provides a batcher over the `Store` and `Pubsub` in the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options | undefined
): Layer.Layer<MetadataBatcher, Batcher.InvalidOptionError, Store | Pubsub> =>
  Layer.effect(MetadataBatcher, make(options))

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options>
): Layer.Layer<MetadataBatcher, Batcher.InvalidOptionError | Config.ConfigError, Store | Pubsub> =>
  Layer.effect(MetadataBatcher, Effect.flatMap(Config.unwrap(config), make))

const toBatch = (rows: ReadonlyArray<newestWins.Row>): MetadataBatch => {
  const size = rows.length
  const agentIds = new Array<AgentId>(size)
  const keys = new Array<string>(size)
  const values = new Array<string>(size)
  const errors = new Array<string>(size)
  const collectedAt = new Array<number>(size)
  for (let i = 0; i < size; i++) {
    const { fact, origin } = rows[i] as newestWins.Row
    agentIds[i] = origin.agentId
    keys[i] = fact.key
    values[i] = fact.value
    errors[i] = fact.error
    collectedAt[i] = fact.collectedAt.epochMilliseconds
  }
  return { agentIds, keys, values, errors, collectedAt }
}

const fromColumns = ({
  collectedAt,
  errors,
  keys,
  values
}: Columns): Effect.Effect<ReadonlyArray<Metadata>, InvalidAddError> => {
  const size = keys.length
  if (values.length !== size || errors.length !== size || collectedAt.length !== size) {
    return Effect.fail(
      new InvalidAddError({
        keys: size,
        values: values.length,
        errors: errors.length,
        collectedAt: collectedAt.length
      })
    )
  }
  return Effect.succeed(
    keys.map((key, i) => ({
      key,
      value: values[i] as string,
      error: errors[i] as string,
      collectedAt: collectedAt[i] as DateTime.Utc
    }))
  )
}
