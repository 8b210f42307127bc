/**
 * The facts agents report about themselves, and the shapes they travel in.
 *
 * A fact is a `Metadata`: a key with its newest value, or the error that kept
 * the agent from reading it, and the time it was collected. Many of them bound
 * for one statement are a `MetadataBatch`; the facts of one agent, as a store
 * returns them, are an `AgentMetadata`.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { AgentId } from "./AgentId.ts"

/**
 * One fact about an agent.
 *
 * **Details**
 *
 * - `key` names the fact within its agent, at most 127 characters in PostgreSQL.
 * - `value` is what was read; `error` is why it could not be, or `""`. Both hold
 *   at most 65,535 characters in PostgreSQL.
 * - `collectedAt` decides which of two facts under one key is newer.
 *
 * The lengths are those of the table `workspace_agent_metadata` in Coder 2.31.
 *
 * @category models
 * @since 0.1.0
 */
export const Metadata = Schema.Struct({
  key: Schema.String,
  value: Schema.String,
  error: Schema.String,
  collectedAt: Schema.DateTimeUtc
})

/**
 * @category models
 * @since 0.1.0
 */
export interface Metadata extends Schema.Schema.Type<typeof Metadata> {}

/**
 * The rows of one write as columns of equal length, the form in which
 * PostgreSQL takes them as one statement. No (agent, key) pair appears twice.
 *
 * @category models
 * @since 0.1.0
 */
export interface MetadataBatch {
  readonly agentIds: ReadonlyArray<AgentId>
  readonly keys: ReadonlyArray<string>
  readonly values: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
  /** Milliseconds since the epoch; a fraction keeps microseconds. */
  readonly collectedAt: ReadonlyArray<number>
}

/**
 * What a store holds for one agent.
 *
 * @category models
 * @since 0.1.0
 */
export const AgentMetadata = Schema.Struct({
  agentId: AgentId,
  facts: Schema.Array(Metadata)
})

/**
 * @category models
 * @since 0.1.0
 */
export interface AgentMetadata extends Schema.Schema.Type<typeof AgentMetadata> {}

/**
 * What a store holds for one agent, in numbers.
 *
 * @category models
 * @since 0.1.0
 */
export const AgentSummary = Schema.Struct({
  agentId: AgentId,
  /** How many facts the agent has, at least 1. */
  facts: Schema.Number,
  /** How many of them have an `error` that is not `""`. */
  errors: Schema.Number,
  /** The time of the newest fact. */
  lastCollectedAt: Schema.DateTimeUtc
})

/**
 * @category models
 * @since 0.1.0
 */
export interface AgentSummary extends Schema.Schema.Type<typeof AgentSummary> {}
