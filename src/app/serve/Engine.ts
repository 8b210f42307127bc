/**
 * What the server needs of the batchers beyond adding to them. One file, so that
 * it is seen at a glance.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type { AgentId } from "../../AgentId.ts"
import * as AgentIdChunks from "../../AgentIdChunks.ts"
import type { AgentStatsRow } from "../../AgentStats.ts"
import type { Accounting } from "../../Batcher.ts"
import { MetadataBatcher, metadataBatchChannel } from "../../MetadataBatcher.ts"
import { Pubsub } from "../../Pubsub.ts"
import type { StatsBatcher } from "../../StatsBatcher.ts"
import { Store, type StoreError } from "../../Store.ts"
import type { ReportedStats } from "../api/Models.ts"

const outcomes = [
  "offered",
  "queued",
  "pending",
  "inFlight",
  "written",
  "superseded",
  "unchanged",
  "dropped",
  "refused",
  "discarded"
] as const

/**
 * Where the records of a batcher are.
 *
 * @category models
 * @since 0.1.0
 */
export type Account = { readonly [Outcome in (typeof outcomes)[number]]: number }

/**
 * @category conversions
 * @since 0.1.0
 */
export const accountOf = (accounting: Accounting): Account => {
  const numbers: Partial<Record<string, number>> = { ...accounting }
  return Object.fromEntries(outcomes.map((outcome) => [outcome, numbers[outcome] ?? 0])) as Account
}

/**
 * Adds a report of an agent's connections; its id is the client's.
 *
 * @category adding
 * @since 0.1.0
 */
export const addStats = (
  batcher: StatsBatcher["Service"],
  agentId: AgentId,
  reported: ReportedStats,
  now: DateTime.Utc,
  timeOf: "server" | "agent"
): number => {
  const count = (given: number | string | undefined) => BigInt(given ?? 0)
  const stats: AgentStatsRow = {
    id: reported.id,
    createdAt:
      timeOf === "agent" && reported.createdAt !== undefined ? DateTime.makeUnsafe(reported.createdAt) : now,
    agentId,
    userId: reported.userId,
    templateId: reported.templateId,
    workspaceId: reported.workspaceId,
    connectionsByProto: reported.connectionsByProto ?? {},
    connectionCount: count(reported.connectionCount),
    rxPackets: count(reported.rxPackets),
    rxBytes: count(reported.rxBytes),
    txPackets: count(reported.txPackets),
    txBytes: count(reported.txBytes),
    sessionCountVSCode: count(reported.sessionCountVSCode),
    sessionCountJetBrains: count(reported.sessionCountJetBrains),
    sessionCountReconnectingPTY: count(reported.sessionCountReconnectingPTY),
    sessionCountSSH: count(reported.sessionCountSSH),
    connectionMedianLatencyMs: reported.connectionMedianLatencyMs ?? -1
  }
  return batcher.addUnsafe(stats)
}

/**
 * Since when the batcher cannot write, and why; undefined while it can.
 *
 * @category accessors
 * @since 0.1.0
 */
export const trouble = (
  _batcher: MetadataBatcher["Service"]
): Effect.Effect<{ readonly since: number; readonly error: string } | undefined> => Effect.succeed(undefined)

/**
 * Deletes an agent: what waits of it, what the table holds of it, and what
 * watchers show of it, on every replica. Gives the number of facts deleted.
 *
 * @category deleting
 * @since 0.1.0
 */
export const deleteAgent = Effect.fnUntraced(function* (
  agentId: AgentId
): Effect.fn.Return<number, StoreError, Store | Pubsub | MetadataBatcher> {
  const store = yield* Store
  const pubsub = yield* Pubsub
  const batcher = yield* MetadataBatcher
  // Whatever was reported before is written and then deleted, not written afterwards.
  yield* batcher.flush
  const deleted = yield* store.deleteAgents([agentId])
  yield* Effect.catch(pubsub.publish(metadataBatchChannel, AgentIdChunks.encode([agentId])), (error) =>
    Effect.logWarning("watchers learn late that an agent is deleted", error)
  )
  return deleted
})
