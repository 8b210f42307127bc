/**
 * The connection statistics an agent reports: one row per report, append-only.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { AgentId } from "./AgentId.ts"

const Uuid = Schema.String.check(Schema.isGUID({ expected: "a UUID" }))

/**
 * One report of an agent's connections, as it goes into
 * `workspace_agent_stats`.
 *
 * **Details**
 *
 * Packet and byte counts are cumulative per connection and may pass 2^53, so
 * they are `bigint`. `createdAt` is kept to the microsecond, as PostgreSQL does;
 * what is finer is cut off when the report is added. A latency of `-1` means
 * "not measured".
 *
 * @category models
 * @since 0.1.0
 */
export const AgentStats = Schema.Struct({
  createdAt: Schema.DateTimeUtc,
  agentId: AgentId,
  userId: Uuid,
  templateId: Uuid,
  workspaceId: Uuid,
  /** Open connections by protocol, for example `{ ssh: 2, vscode: 1 }`. */
  connectionsByProto: Schema.Record(Schema.String, Schema.Number),
  connectionCount: Schema.BigInt,
  rxPackets: Schema.BigInt,
  rxBytes: Schema.BigInt,
  txPackets: Schema.BigInt,
  txBytes: Schema.BigInt,
  sessionCountVSCode: Schema.BigInt,
  sessionCountJetBrains: Schema.BigInt,
  sessionCountReconnectingPTY: Schema.BigInt,
  sessionCountSSH: Schema.BigInt,
  /** Milliseconds. */
  connectionMedianLatencyMs: Schema.Number
})

/**
 * @category models
 * @since 0.1.0
 */
export interface AgentStats extends Schema.Schema.Type<typeof AgentStats> {}

/**
 * A report with the identity of its row. The id is what makes a batch safe to
 * write again: a row the store already holds is left as it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface AgentStatsRow extends AgentStats {
  readonly id: string
}
