/**
 * Where batches are written to and facts are read from.
 *
 * A `Store` is the database as the batchers see it. `PgStore` is PostgreSQL;
 * `layerMemory` keeps everything in the process, for tests and demos. Every
 * implementation obeys the same rules, and the conformance suite holds each to
 * them:
 *
 * - A write is all or nothing.
 * - It is idempotent: a batch may be written again, because the outcome of a
 *   lost connection is unknown.
 * - It is newest-wins: a fact collected before the one the store holds changes
 *   nothing; one collected at the same time or later replaces it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { AgentId } from "./AgentId.ts"
import type { AgentStatsRow } from "./AgentStats.ts"
import type { AgentMetadata, MetadataBatch } from "./Metadata.ts"

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
    return `the store is unavailable: ${describe(this.cause)}`
  }
}

/**
 * The store refuses the batch because of what is in it. `rows` names the
 * positions at fault where the store knows them; without it, whoever wrote the
 * batch has to find them.
 *
 * @category errors
 * @since 0.1.0
 */
export class Rejected extends Schema.Error<Rejected>("effect-metadata-batcher/Store/Rejected")({
  _tag: Schema.tag("Rejected"),
  rows: Schema.UndefinedOr(Schema.Array(Schema.Number)),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the store rejected the batch: ${describe(this.cause)}`
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
    return `the statement was canceled: ${describe(this.cause)}`
  }
}

const describe = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

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
 * they are known.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rejected = (cause: unknown, rows?: ReadonlyArray<number> | undefined): StoreError =>
  new StoreError({ reason: new Rejected({ cause, rows }) })

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
