import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type { AgentId } from "../../AgentId.ts"
import type { AgentMetadata, AgentSummary, Metadata } from "../../Metadata.ts"
import type { StoreError } from "../../Store.ts"
import { arrayOf } from "./arrays.ts"
import type { Run } from "./session.ts"
import { classify } from "./sqlError.ts"

// Others may have written times that a `Date` cannot hold, infinity for one.
const asDate = (time: string): string =>
  `greatest(least(${time}, '275760-09-13 00:00:00+00'), '4714-11-24 00:00:00+00 BC')`

const selectMetadata = (table: string): string => `
SELECT workspace_agent_id AS "agentId", key, value, error, ${asDate("collected_at")} AS "collectedAt"
FROM ${table}
WHERE workspace_agent_id = ANY ($1::uuid[])`

const selectKeys = (table: string): string => `${selectMetadata(table)} AND key = ANY ($2::text[])`

const selectAgents = (table: string): string => `
SELECT workspace_agent_id AS "agentId", count(*)::int AS facts,
  (count(*) FILTER (WHERE error <> ''))::int AS errors, ${asDate("max(collected_at)")} AS "lastCollectedAt"
FROM ${table}
WHERE workspace_agent_id > $1::uuid
GROUP BY workspace_agent_id
ORDER BY workspace_agent_id
LIMIT $2::int`

// No agent has this id, which comes before all others. With a condition that
// need not be there the index is not used.
const noAgent = "00000000-0000-0000-0000-000000000000"

const deleteMetadata = (table: string): string =>
  `DELETE FROM ${table} WHERE workspace_agent_id = ANY ($1::uuid[])`

interface MetadataRow {
  readonly agentId: AgentId
  readonly key: string
  readonly value: string
  readonly error: string
  readonly collectedAt: Date
}

interface AgentRow {
  readonly agentId: AgentId
  readonly facts: number
  readonly errors: number
  readonly lastCollectedAt: Date
}

const groupByAgent = (rows: ReadonlyArray<MetadataRow>): ReadonlyArray<AgentMetadata> => {
  const agents = new Map<AgentId, Array<Metadata>>()
  for (const { agentId, collectedAt, error, key, value } of rows) {
    const facts = agents.get(agentId) ?? []
    agents.set(agentId, facts)
    facts.push({ key, value, error, collectedAt: DateTime.fromDateUnsafe(collectedAt) })
  }
  return Array.from(agents, ([agentId, facts]) => ({ agentId, facts }))
}

/** Makes what reads and deletes the facts of a table. */
export const make = (run: Run, table: string) => {
  const texts = {
    metadata: selectMetadata(table),
    keys: selectKeys(table),
    agents: selectAgents(table),
    delete: deleteMetadata(table)
  }
  return {
    metadataOf: (
      agentIds: ReadonlyArray<AgentId>,
      options?: { readonly keys?: ReadonlyArray<string> | undefined }
    ): Effect.Effect<ReadonlyArray<AgentMetadata>, StoreError> =>
      Effect.suspend(() => {
        const keys = options?.keys
        if (agentIds.length === 0 || keys?.length === 0) return Effect.succeed([])
        const ids = arrayOf(agentIds, PgTypes.OID.uuid)
        const read =
          keys === undefined
            ? run<MetadataRow>(texts.metadata, [ids])
            : run<MetadataRow>(texts.keys, [ids, arrayOf(keys, PgTypes.OID.text)])
        return Effect.mapBoth(read, { onSuccess: ({ rows }) => groupByAgent(rows), onFailure: classify })
      }),

    agents: (options: {
      readonly after?: AgentId | undefined
      readonly limit: number
    }): Effect.Effect<ReadonlyArray<AgentSummary>, StoreError> =>
      Effect.suspend(() =>
        Effect.mapBoth(
          run<AgentRow>(texts.agents, [PgTypes.uuid(options.after ?? noAgent), PgTypes.int4(options.limit)]),
          {
            onSuccess: ({ rows }) =>
              rows.map((row) => ({ ...row, lastCollectedAt: DateTime.fromDateUnsafe(row.lastCollectedAt) })),
            onFailure: classify
          }
        )
      ),

    deleteAgents: (agentIds: ReadonlyArray<AgentId>): Effect.Effect<number, StoreError> =>
      Effect.suspend(() =>
        agentIds.length === 0
          ? Effect.succeed(0)
          : Effect.mapBoth(run(texts.delete, [arrayOf(agentIds, PgTypes.OID.uuid)]), {
              onSuccess: ({ rowCount }) => rowCount,
              onFailure: classify
            })
      )
  }
}
