/**
 * Where batches are written to and facts are read from.
 *
 * A `Store` is the database as the batchers see it. `PgStore` is PostgreSQL;
 * `layerMemory` keeps everything in the process, for tests and demos. Every
 * implementation obeys the same rules, and the conformance suite holds each to
 * them:
 *
 * - A write that succeeds says what became of its rows: how many changed, which
 *   were refused and why. One that fails has written nothing, or its outcome is
 *   unknown.
 * - It is idempotent: a batch may be written again, because the outcome of a
 *   lost connection is unknown.
 * - It is newest-wins: a fact collected before the one the store holds changes
 *   nothing; one collected at the same time or later replaces it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { AgentId } from "./AgentId.ts"
import type { AgentStatsRow } from "./AgentStats.ts"
import { allChanged, type Refusal, type WriteResult } from "./internal/batcher/writeResult.ts"
import { innermostMessage } from "./internal/innermostMessage.ts"
import * as check from "./internal/postgres/check.ts"
import type { AgentMetadata, AgentSummary, Metadata, MetadataBatch } from "./Metadata.ts"

export { allChanged, type Refusal, type WriteResult }

/**
 * What a database said of a failure, without a word that may quote a value.
 * PostgreSQL's own messages do: `invalid input syntax for type integer: "…"`.
 *
 * @category errors
 * @since 0.1.0
 */
export class DatabaseFault extends Schema.Error<DatabaseFault>("effect-metadata-batcher/Store/DatabaseFault")(
  {
    _tag: Schema.tag("DatabaseFault"),
    /** The five characters by which PostgreSQL names an error. */
    sqlState: Schema.String,
    constraint: Schema.optional(Schema.String),
    table: Schema.optional(Schema.String),
    column: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const named = (["constraint", "table", "column"] as const).flatMap((what) =>
      this[what] === undefined ? [] : [`${what} ${JSON.stringify(this[what])}`]
    )
    return [`SQLSTATE ${this.sqlState}`, ...named].join(", ")
  }
}

/**
 * The store cannot take writes now and may later: it is down, starting,
 * overloaded, read-only, or lacks something an operator has to put right
 * (a table, a grant). No row is at fault; the same batch may be written again.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Schema.Error<Unavailable>("effect-metadata-batcher/Store/Unavailable")({
  _tag: Schema.tag("Unavailable"),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the store is unavailable: ${innermostMessage(this.cause)}`
  }
}

/**
 * The store refused the batch and wrote nothing of it; some row may be at fault.
 * Whoever wrote the batch finds it by writing fewer rows at a time.
 *
 * @category errors
 * @since 0.1.0
 */
export class Rejected extends Schema.Error<Rejected>("effect-metadata-batcher/Store/Rejected")({
  _tag: Schema.tag("Rejected"),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the store rejected the batch: ${innermostMessage(this.cause)}`
  }
}

/**
 * The statement was canceled, by a timeout of the server or by an operator, or
 * did not survive for another reason that may be its size. The same batch may be
 * written again, in smaller statements.
 *
 * @category errors
 * @since 0.1.0
 */
export class Canceled extends Schema.Error<Canceled>("effect-metadata-batcher/Store/Canceled")({
  _tag: Schema.tag("Canceled"),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the statement was canceled: ${innermostMessage(this.cause)}`
  }
}

/**
 * Why a store could not do what it was asked.
 *
 * @category errors
 * @since 0.1.0
 */
export const StoreErrorReason = Schema.Union([Unavailable, Rejected, Canceled])

/**
 * @category errors
 * @since 0.1.0
 */
export type StoreErrorReason = Unavailable | Rejected | Canceled

/**
 * The failure of every `Store` operation. Match on `reason._tag`, or use
 * `Effect.catchReason("StoreError", "Unavailable", …)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreError extends Schema.Error<StoreError>("effect-metadata-batcher/Store/StoreError")({
  _tag: Schema.tag("StoreError"),
  reason: StoreErrorReason
}) {
  override get message(): string {
    return this.reason.message
  }
}

/**
 * A `StoreError` whose reason is `Unavailable`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unavailable = (cause: unknown): StoreError =>
  new StoreError({ reason: new Unavailable({ cause }) })

/**
 * A `StoreError` whose reason is `Rejected`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rejected = (cause: unknown): StoreError => new StoreError({ reason: new Rejected({ cause }) })

/**
 * A `StoreError` whose reason is `Canceled`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const canceled = (cause: unknown): StoreError => new StoreError({ reason: new Canceled({ cause }) })

/**
 * The database as the batchers see it.
 *
 * @category services
 * @since 0.1.0
 */
export class Store extends Context.Service<
  Store,
  {
    /** Writes the newest facts, in one statement where the database can. */
    readonly batchUpdateMetadata: (batch: MetadataBatch) => Effect.Effect<WriteResult, StoreError>
    /** Appends reports; a row whose id is held already is left as it is and counts as changed. */
    readonly batchInsertStats: (rows: ReadonlyArray<AgentStatsRow>) => Effect.Effect<WriteResult, StoreError>
    /** The facts held for these agents, or those of them under `keys`; an agent without any is left out. */
    readonly metadataOf: (
      agentIds: ReadonlyArray<AgentId>,
      options?: { readonly keys?: ReadonlyArray<string> | undefined }
    ) => Effect.Effect<ReadonlyArray<AgentMetadata>, StoreError>
    /** The agents that have facts, by id, at most `limit` of those that come `after` another. */
    readonly agents: (options: {
      readonly after?: AgentId | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<AgentSummary>, StoreError>
    /** Deletes all facts of these agents and says how many there were. */
    readonly deleteAgents: (agentIds: ReadonlyArray<AgentId>) => Effect.Effect<number, StoreError>
  }
>()("effect-metadata-batcher/Store") {}

/**
 * A store in the process's memory, and what it was given to append.
 *
 * @category models
 * @since 0.1.0
 */
export interface MemoryStore {
  readonly store: Store["Service"]
  /** Every report appended so far, oldest first. */
  readonly stats: Effect.Effect<ReadonlyArray<AgentStatsRow>>
}

/**
 * Makes a store in memory whose appended reports can be read back. It refuses
 * what PostgreSQL refuses, and grows without bound.
 *
 * **Example** (Inspecting what was written)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { AgentId, Store } from "effect-metadata-batcher"
 * import * as Effect from "effect/Effect"
 * import * as Schema from "effect/Schema"
 *
 * const agentId = Schema.decodeSync(AgentId.AgentId)("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
 *
 * const program = Effect.gen(function* () {
 *   const { store } = yield* Store.makeMemory
 *   yield* store.batchUpdateMetadata({
 *     agentIds: [agentId],
 *     keys: ["cpu"],
 *     values: ["7 %"],
 *     errors: [""],
 *     collectedAt: [0]
 *   })
 *   const [agent] = yield* store.metadataOf([agentId])
 *   assert.equal(agent?.facts[0]?.value, "7 %")
 * })
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeMemory: Effect.Effect<MemoryStore> = Effect.sync(() => {
  const metadata = new Map<AgentId, Map<string, Fact>>()
  const stats = new Map<string, AgentStatsRow>()

  /** Whether the fact is the newest of its key. */
  const put = (agentId: AgentId, fact: Fact): boolean => {
    const facts = metadata.get(agentId) ?? new Map<string, Fact>()
    metadata.set(agentId, facts)
    const held = facts.get(fact.key)
    if (held !== undefined && fact.collectedAt < held.collectedAt) return false
    facts.set(fact.key, fact)
    return true
  }

  const batchUpdateMetadata = (batch: MetadataBatch): WriteResult => {
    const refused = check.metadataRefusals(batch)
    const isRefused = new Set(refused.map(({ position }) => position))
    const superseded: Array<number> = []
    batch.agentIds.forEach((agentId, position) => {
      if (!isRefused.has(position) && !put(agentId, factAt(batch, position))) superseded.push(position)
    })
    const changed = batch.agentIds.length - refused.length - superseded.length
    return { changed, superseded, missing: [], refused }
  }

  const batchInsertStats = (rows: ReadonlyArray<AgentStatsRow>): WriteResult => {
    const refused = check.statsRefusals(rows)
    const isRefused = new Set(refused.map(({ position }) => position))
    rows.forEach((row, position) => {
      if (!isRefused.has(position) && !stats.has(row.id)) stats.set(row.id, row)
    })
    return { ...allChanged(rows.length - refused.length), refused }
  }

  const metadataOf = (
    agentIds: ReadonlyArray<AgentId>,
    keys: ReadonlyArray<string> | undefined
  ): ReadonlyArray<AgentMetadata> =>
    Array.from(new Set(agentIds)).flatMap((agentId) => {
      const facts = Array.from(metadata.get(agentId)?.values() ?? [])
        .filter(({ key }) => keys === undefined || keys.includes(key))
        .map((fact) => ({ ...fact, collectedAt: DateTime.makeUnsafe(fact.collectedAt) }))
      return facts.length === 0 ? [] : [{ agentId, facts }]
    })

  const summarize = (agentId: AgentId): AgentSummary => {
    const facts = Array.from(metadata.get(agentId)?.values() ?? [])
    return {
      agentId,
      facts: facts.length,
      errors: facts.filter(({ error }) => error !== "").length,
      lastCollectedAt: DateTime.makeUnsafe(
        facts.reduce((last, { collectedAt }) => Math.max(last, collectedAt), Number.NEGATIVE_INFINITY)
      )
    }
  }

  const deleteAgent = (agentId: AgentId): number => {
    const deleted = metadata.get(agentId)?.size ?? 0
    metadata.delete(agentId)
    return deleted
  }

  return {
    stats: Effect.sync(() => Array.from(stats.values())),
    store: Store.of({
      batchUpdateMetadata: (batch) => Effect.sync(() => batchUpdateMetadata(batch)),
      batchInsertStats: (rows) => Effect.sync(() => batchInsertStats(rows)),
      metadataOf: (agentIds, options) => Effect.sync(() => metadataOf(agentIds, options?.keys)),
      agents: ({ after, limit }) =>
        Effect.sync(() =>
          Array.from(metadata.keys())
            .filter((agentId) => after === undefined || agentId > after)
            .sort()
            .slice(0, limit)
            .map(summarize)
        ),
      deleteAgents: (agentIds) =>
        Effect.sync(() => agentIds.reduce((deleted, agentId) => deleted + deleteAgent(agentId), 0))
    })
  }
})

type Fact = Omit<Metadata, "collectedAt"> & { readonly collectedAt: number }

// All columns are as long as the first; the check before has refused what is not there.
const factAt = (batch: MetadataBatch, position: number): Fact => ({
  key: batch.keys[position] ?? "",
  value: batch.values[position] ?? "",
  error: batch.errors[position] ?? "",
  collectedAt: batch.collectedAt[position] ?? Number.NaN
})

/**
 * A store in the process's memory, empty at first. `makeMemory` gives one whose
 * appended reports a test can read.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Store> = Layer.effect(
  Store,
  Effect.map(makeMemory, ({ store }) => store)
)
