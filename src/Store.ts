/**
 * Where batches are written to and facts are read from.
 *
 * A `Store` is the database as the batchers see it. `PgStore` is PostgreSQL;
 * `layerMemory` keeps everything in the process, for tests and demos. Every
 * implementation obeys the same rules, and the conformance suite holds each to
 * them:
 *
 * - A write is all or nothing. Only a store that names the rows it rejects may
 *   have written all the others, and says so.
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
import { metadataAtFault, statsAtFault } from "./internal/checkRows.ts"
import { innermostMessage } from "./internal/innermostMessage.ts"
import type { AgentMetadata, Metadata, MetadataBatch } from "./Metadata.ts"

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
 * The store refuses the batch because of what is in it. `rows` names the
 * positions at fault where the store knows them; without it, whoever wrote the
 * batch has to find them. `othersWritten` says that every other row has been
 * written all the same.
 *
 * @category errors
 * @since 0.1.0
 */
export class Rejected extends Schema.Error<Rejected>("effect-metadata-batcher/Store/Rejected")({
  _tag: Schema.tag("Rejected"),
  rows: Schema.UndefinedOr(Schema.Array(Schema.Number)),
  othersWritten: Schema.Boolean,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the store rejected the batch: ${innermostMessage(this.cause)}`
  }
}

/**
 * The statement was canceled, by a timeout of the server or by an operator.
 * The same batch may be written again.
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
 * A `StoreError` whose reason is `Rejected`, naming the rows at fault where
 * they are known. Unless `othersWritten` is given, nothing was written.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rejected = (
  cause: unknown,
  rows?: ReadonlyArray<number> | undefined,
  options?: { readonly othersWritten: boolean } | undefined
): StoreError =>
  new StoreError({ reason: new Rejected({ cause, rows, othersWritten: options?.othersWritten ?? false }) })

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
    readonly batchUpdateMetadata: (batch: MetadataBatch) => Effect.Effect<void, StoreError>
    /** Appends reports; a row whose id is held already is left as it is. */
    readonly batchInsertStats: (rows: ReadonlyArray<AgentStatsRow>) => Effect.Effect<void, StoreError>
    /** The facts held for these agents; an agent without any is left out. */
    readonly metadataOf: (
      agentIds: ReadonlyArray<AgentId>
    ) => Effect.Effect<ReadonlyArray<AgentMetadata>, StoreError>
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
  type Fact = Omit<Metadata, "collectedAt"> & { readonly collectedAt: number }
  const metadata = new Map<AgentId, Map<string, Fact>>()
  const stats = new Map<string, AgentStatsRow>()

  const refuse = (atFault: ReadonlyArray<number>) =>
    Effect.fail(rejected(new Error("PostgreSQL would refuse this"), atFault))

  const put = (agentId: AgentId, fact: Fact): void => {
    const facts = metadata.get(agentId) ?? new Map<string, Fact>()
    metadata.set(agentId, facts)
    const held = facts.get(fact.key)
    if (held === undefined || fact.collectedAt >= held.collectedAt) facts.set(fact.key, fact)
  }

  return {
    stats: Effect.sync(() => Array.from(stats.values())),
    store: Store.of({
      batchUpdateMetadata: (batch) =>
        Effect.suspend(() => {
          const atFault = metadataAtFault(batch)
          if (atFault.length > 0) return refuse(atFault)
          batch.agentIds.forEach((agentId, row) => {
            const [key, value, error] = [batch.keys[row], batch.values[row], batch.errors[row]]
            const collectedAt = batch.collectedAt[row]
            if (key === undefined || value === undefined || error === undefined || collectedAt === undefined)
              return
            put(agentId, { key, value, error, collectedAt })
          })
          return Effect.void
        }),
      batchInsertStats: (rows) =>
        Effect.suspend(() => {
          const atFault = statsAtFault(rows)
          if (atFault.length > 0) return refuse(atFault)
          for (const row of rows) {
            if (!stats.has(row.id)) stats.set(row.id, row)
          }
          return Effect.void
        }),
      metadataOf: (agentIds) =>
        Effect.sync(() => {
          const found: Array<AgentMetadata> = []
          for (const agentId of new Set(agentIds)) {
            const facts = metadata.get(agentId)
            if (facts === undefined) continue
            found.push({
              agentId,
              facts: Array.from(facts.values(), (fact) => ({
                ...fact,
                collectedAt: DateTime.makeUnsafe(fact.collectedAt)
              }))
            })
          }
          return found
        })
    })
  }
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
