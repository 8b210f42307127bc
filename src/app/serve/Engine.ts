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
import { MetadataBatcher, metadataBatchChannel } from "../../MetadataBatcher.ts"
import { Pubsub } from "../../Pubsub.ts"
import type { StatsBatcher } from "../../StatsBatcher.ts"
import { Store, type StoreError } from "../../Store.ts"
import type { ReportedStats } from "../api/Models.ts"

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
  return batcher.addUnsafe({
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
  })
}

/**
 * Since when the batcher cannot write, and why; undefined while it can.
 *
 * @category accessors
 * @since 0.1.0
 */
export const trouble = ({
  status
}: MetadataBatcher["Service"]): Effect.Effect<
  { readonly since: number; readonly error: string } | undefined
> =>
  Effect.map(status, (status) =>
    status._tag === "Available" ? undefined : { since: status.since.epochMilliseconds, error: status.error }
  )

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
  // First, so that nothing of it is written after it was deleted.
  yield* batcher.forget(agentId)
  const deleted = yield* store.deleteAgents([agentId])
  yield* Effect.catch(pubsub.publish(metadataBatchChannel, AgentIdChunks.encode([agentId])), (error) =>
    Effect.logWarning("watchers learn late that an agent is deleted", error)
  )
  return deleted
})
