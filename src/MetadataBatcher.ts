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
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import type { AgentId } from "./AgentId.ts"
import * as AgentIdChunks from "./AgentIdChunks.ts"
import * as Batcher from "./Batcher.ts"
import { withoutCaller } from "./internal/background.ts"
import * as Engine from "./internal/batcher/engine.ts"
import { sampledSpan } from "./internal/batcher/flushSpan.ts"
import { isTooLong, maxKeyLength, maxTextLength } from "./internal/metadata/limits.ts"
import { forgetWhatOthersWrite } from "./internal/metadata/others.ts"
import type { Metadata, MetadataBatch } from "./Metadata.ts"
import { Pubsub } from "./Pubsub.ts"
import { Store } from "./Store.ts"

/**
 * The channel on which changed agents are announced, as `AgentIdChunks`. Coder
 * 2.31 uses the same name and encoding, so that both understand each other.
 *
 * @category constants
 * @since 0.1.0
 */
export const metadataBatchChannel = "workspace_agent_metadata_batch"

/**
 * Settings of a `MetadataBatcher`; see `Batcher.Options` for each of the others.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Batcher.Options {
  /** The channel on which changed agents are announced. Default `metadataBatchChannel`. */
  readonly channel?: string | undefined
  /**
   * Is given the facts that are given up, in batches of at most 500: the place
   * for a dead letter table. It never holds up a write; of more than `maxPending`
   * facts waiting for it the oldest are left out, and a warning says how many.
   *
   * **Example** (Keeping what could not be written)
   *
   * ```ts
   * import * as assert from "node:assert/strict"
   * import { AgentId, MetadataBatcher, Pubsub, Store } from "effect-metadata-batcher"
   * import * as DateTime from "effect/DateTime"
   * import * as Effect from "effect/Effect"
   * import * as Layer from "effect/Layer"
   *
   * const deadLetters: Array<MetadataBatcher.DiscardedFact> = []
   *
   * const Batcher = MetadataBatcher.layer({
   *   onDiscarded: (facts) => Effect.sync(() => void deadLetters.push(...facts))
   * }).pipe(Layer.provide([Store.layerMemory, Pubsub.layerMemory]))
   *
   * const program = Effect.gen(function* () {
   *   const batcher = yield* MetadataBatcher.MetadataBatcher
   *   const agentId = AgentId.AgentId.make("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
   *   // No store takes a NUL byte.
   *   yield* batcher.add(agentId, [{ key: "cpu", value: "\0", error: "", collectedAt: yield* DateTime.now }])
   *   const { refused } = yield* batcher.flush
   *   assert.equal(refused, 1)
   * })
   *
   * await Effect.runPromise(Effect.provide(program, Batcher))
   * assert.deepEqual(deadLetters.map(({ fact }) => fact.key), ["cpu"])
   * ```
   */
  readonly onDiscarded?: ((facts: ReadonlyArray<DiscardedFact>) => Effect.Effect<void>) | undefined
}

/**
 * A fact that was taken and is given up, with the reason. `Batcher.Discarded`
 * says what each reason means.
 *
 * @category models
 * @since 0.1.0
 */
export interface DiscardedFact {
  readonly agentId: AgentId
  readonly fact: Metadata
  readonly reason: Batcher.Discarded<Metadata>["reason"]
  /** What the store said, without values; empty where it said nothing. */
  readonly why: string
}

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
     * many of the facts were taken. Given the caller's span, the flush that
     * writes them links to it.
     */
    readonly addUnsafe: (
      agentId: AgentId,
      facts: ReadonlyArray<Metadata>,
      span?: Tracer.AnySpan | undefined
    ) => number
    /**
     * Adds facts given as parallel arrays. Arrays of unequal length are an
     * `InvalidAddError`, and nothing is added.
     */
    readonly addColumns: (agentId: AgentId, columns: Columns) => Effect.Effect<void, InvalidAddError>
    /**
     * Gives up what waits of an agent, one that is being deleted for instance,
     * and returns once no write under way holds any of it. From then on nothing
     * of it is written until it reports again.
     */
    readonly forget: (agentId: AgentId) => Effect.Effect<void>
    /**
     * Writes all that was accepted so far, whatever the interval, and says what
     * became of it. During an outage it waits for the next attempt. Whoever
     * calls while a flush is under way shares the next one.
     */
    readonly flush: Effect.Effect<Batcher.Flushed>
    /** Where every fact that was ever offered is now; also after the batcher has closed. */
    readonly accounting: Effect.Effect<Batcher.Accounting>
    /** Whether the store takes writes, and since when it does not. */
    readonly status: Effect.Effect<Batcher.Status>
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
  options: Options = {}
): Effect.fn.Return<MetadataBatcher["Service"], Batcher.InvalidOptionError, Store | Pubsub | Scope.Scope> {
  const store = yield* Store
  const pubsub = yield* Pubsub
  const { channel = metadataBatchChannel, onDiscarded, ...shared } = options
  const others = forgetWhatOthersWrite(pubsub, channel)

  const engine = yield* Engine.make<Metadata>({
    name: "MetadataBatcher",
    kind: "metadata",
    options: shared,
    // Those of Coder 2.31: 500 rows, 5 seconds.
    defaults: { maxBatchSize: 500, interval: "5 seconds" },
    accumulate,
    write: (facts, agentIds) => store.batchUpdateMetadata(toBatch(facts, agentIds as ReadonlyArray<AgentId>)),
    announce: {
      channel,
      encode: (agentIds) => AgentIdChunks.encode(agentIds as ReadonlyArray<AgentId>),
      publish:
        shared.unchanged === undefined ? (payloads) => pubsub.publish(channel, payloads) : others.publish
    },
    onDiscarded: onDiscarded && ((discarded) => onDiscarded(discarded.map(toDiscardedFact)))
  })
  if (shared.unchanged !== undefined) {
    // It outlives whoever builds the layer, and nothing of theirs belongs to it.
    const listening = Effect.updateContext(others.run(engine.forgetWrittenUnsafe), withoutCaller<never>)
    yield* Effect.forkScoped(listening)
  }

  const add = (agentId: AgentId, facts: ReadonlyArray<Metadata>): Effect.Effect<void> =>
    Effect.withFiberSucceed((fiber) => void engine.offerUnsafe(agentId, facts, sampledSpan(fiber)))

  return MetadataBatcher.of({
    add,
    addUnsafe: (agentId, facts, span) =>
      engine.offerUnsafe(agentId, facts, span?.sampled === true ? span : undefined),
    addColumns: (agentId, columns) => Effect.flatMap(fromColumns(columns), (facts) => add(agentId, facts)),
    forget: engine.forget,
    flush: engine.flush,
    accounting: engine.accounting,
    status: engine.status
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
 * `layer` with its options read from the configuration. `onDiscarded` is no
 * setting, and is given apart.
 *
 * **Example** (Options from the environment)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { MetadataBatcher, Pubsub, Store } from "effect-metadata-batcher"
 * import * as Config from "effect/Config"
 * import * as ConfigProvider from "effect/ConfigProvider"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const Batcher = MetadataBatcher.layerConfig({
 *   interval: Config.Duration("BATCHER_INTERVAL"),
 *   maxPending: Config.withDefault(Config.Int("BATCHER_MAX_PENDING"), 50_000)
 * }).pipe(Layer.provide([Store.layerMemory, Pubsub.layerMemory]))
 *
 * const program = Effect.gen(function* () {
 *   const batcher = yield* MetadataBatcher.MetadataBatcher
 *   return yield* batcher.status
 * })
 *
 * const environment = ConfigProvider.fromEnv({ env: { BATCHER_INTERVAL: "2 seconds" } })
 * const status = await Effect.runPromise(
 *   program.pipe(Effect.provide(Batcher), Effect.provideService(ConfigProvider.ConfigProvider, environment))
 * )
 * assert.equal(status._tag, "Available")
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Omit<Options, "onDiscarded">>,
  options?: Pick<Options, "onDiscarded"> | undefined
): Layer.Layer<MetadataBatcher, Batcher.InvalidOptionError | Config.ConfigError, Store | Pubsub> =>
  Layer.effect(
    MetadataBatcher,
    Effect.flatMap(Config.unwrap(config), (read) => make({ ...read, ...options }))
  )

// A time no `Date` can hold is left to the store to refuse.
const withTime = (fact: Metadata, time: number): Metadata => ({
  key: fact.key,
  value: fact.value,
  error: fact.error,
  collectedAt: DateTime.makeUnsafe(time)
})

/** Two bytes per UTF-16 unit; NaN for what is no fact, or is longer than any store takes. */
const bytesOf = (fact: Metadata): number => {
  const { error, key, value } = fact
  return typeof key === "string" &&
    typeof value === "string" &&
    typeof error === "string" &&
    !isTooLong(key, maxKeyLength) &&
    !isTooLong(value, maxTextLength) &&
    !isTooLong(error, maxTextLength)
    ? 2 * (key.length + value.length + error.length)
    : Number.NaN
}

const accumulate = Batcher.newestWins<Metadata>({
  // A report names its agent; a fact does not.
  group: () => "",
  key: (fact) => fact.key,
  time: (fact) => fact.collectedAt.epochMilliseconds,
  withTime,
  bytes: bytesOf,
  content: (fact) => [fact.value, fact.error]
})

const toDiscardedFact = ({ group, reason, record, why }: Batcher.Discarded<Metadata>): DiscardedFact => ({
  agentId: group as AgentId,
  fact: record,
  reason,
  why
})

const toBatch = (facts: ReadonlyArray<Metadata>, agentIds: ReadonlyArray<AgentId>): MetadataBatch => {
  const size = facts.length
  const keys = new Array<string>(size)
  const values = new Array<string>(size)
  const errors = new Array<string>(size)
  const collectedAt = new Array<number>(size)
  for (let i = 0; i < size; i++) {
    const fact = facts[i] as Metadata
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
