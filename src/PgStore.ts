/**
 * The `Store` in PostgreSQL, through `@effect/sql-pg`.
 *
 * Every operation is one statement whose text never changes, so that a
 * connection prepares it once, with one array parameter per column.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Statement from "effect/sql/Statement"
import type { AgentId } from "./AgentId.ts"
import type { AgentStatsRow } from "./AgentStats.ts"
import * as check from "./internal/postgres/check.ts"
import { classify } from "./internal/sqlError.ts"
import type { AgentMetadata, Metadata } from "./Metadata.ts"
import * as Store from "./Store.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Update only rows that exist, and pass over the others. Default `false`.
   *
   * For a database where something else creates the rows, Coder's for one, whose
   * table has further columns without defaults. Takes 37 % longer than the
   * upsert (500 rows, measured in one run), because it locks the rows, in key
   * order, before it updates them.
   */
  readonly onlyExisting?: boolean | undefined
  /** Default `workspace_agent_metadata`; a schema goes before it with a dot. */
  readonly metadataTable?: string | undefined
  /** Default `workspace_agent_stats`; a schema goes before it with a dot. */
  readonly statsTable?: string | undefined
}

const escapeIdentifier = Statement.defaultEscape('"')

const batch = "unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])"

// The order is the server's, the same for every writer, so that two of them
// never lock the same rows in opposite order.
const upsertMetadata = (table: string, rows: string): string => `
INSERT INTO ${table} AS t (workspace_agent_id, key, value, error, collected_at)
SELECT * FROM ${rows} AS u(a, k, v, e, c)
ORDER BY a, k
ON CONFLICT (workspace_agent_id, key) DO UPDATE
SET value = excluded.value, error = excluded.error, collected_at = excluded.collected_at
WHERE excluded.collected_at >= t.collected_at`

// Two facts of a batch may turn out to be of one row, where a key has a lone
// surrogate for one: an UPDATE joined to both would take either.
const updateMetadata = (table: string, rows: string): string => `
WITH l AS MATERIALIZED (
  SELECT t.workspace_agent_id AS a, t.key AS k, u.v, u.e, u.c
  FROM ${table} AS t
  JOIN (SELECT DISTINCT ON (a, k) * FROM ${rows} AS r(a, k, v, e, c) ORDER BY a, k, c DESC) AS u
    ON t.workspace_agent_id = u.a AND t.key = u.k
  WHERE t.collected_at <= u.c
  ORDER BY 1, 2
  FOR NO KEY UPDATE OF t
)
UPDATE ${table} AS t
SET value = l.v, error = l.e, collected_at = l.c
FROM l
WHERE t.workspace_agent_id = l.a AND t.key = l.k AND t.collected_at <= l.c`

// Others may have written times that a `Date` cannot hold, infinity for one.
const selectMetadata = (table: string): string => `
SELECT workspace_agent_id AS "agentId", key, value, error,
  greatest(least(collected_at, '275760-09-13 00:00:00+00'), '4714-11-24 00:00:00+00 BC') AS "collectedAt"
FROM ${table}
WHERE workspace_agent_id = ANY ($1::uuid[]) AND ($2::text[] IS NULL OR key = ANY ($2::text[]))`

const selectAgents = (table: string): string => `
SELECT workspace_agent_id AS "agentId", count(*)::int AS facts, (count(*) FILTER (WHERE error <> ''))::int AS errors,
  greatest(least(max(collected_at), '275760-09-13 00:00:00+00'), '4714-11-24 00:00:00+00 BC') AS "lastCollectedAt"
FROM ${table}
WHERE $1::uuid IS NULL OR workspace_agent_id > $1::uuid
GROUP BY workspace_agent_id
ORDER BY workspace_agent_id
LIMIT $2::int`

const deleteAgents = (table: string): string => `
WITH deleted AS (DELETE FROM ${table} WHERE workspace_agent_id = ANY ($1::uuid[]) RETURNING 1)
SELECT count(*)::int AS deleted FROM deleted`

interface AgentRow {
  readonly agentId: AgentId
  readonly facts: number
  readonly errors: number
  readonly lastCollectedAt: Date
}

interface MetadataRow {
  readonly agentId: AgentId
  readonly key: string
  readonly value: string
  readonly error: string
  readonly collectedAt: Date
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

// The columns of the statistics table in the order of the parameters, each with
// the element type of its array and where its values come from.
const statsColumns: ReadonlyArray<readonly [name: string, oid: number, of: (row: AgentStatsRow) => unknown]> =
  [
    ["id", PgTypes.OID.uuid, (row) => row.id],
    ["created_at", PgTypes.OID.timestamptz, (row) => row.createdAt.epochMilliseconds],
    ["user_id", PgTypes.OID.uuid, (row) => row.userId],
    ["agent_id", PgTypes.OID.uuid, (row) => row.agentId],
    ["workspace_id", PgTypes.OID.uuid, (row) => row.workspaceId],
    ["template_id", PgTypes.OID.uuid, (row) => row.templateId],
    ["connection_count", PgTypes.OID.int8, (row) => row.connectionCount],
    ["rx_packets", PgTypes.OID.int8, (row) => row.rxPackets],
    ["rx_bytes", PgTypes.OID.int8, (row) => row.rxBytes],
    ["tx_packets", PgTypes.OID.int8, (row) => row.txPackets],
    ["tx_bytes", PgTypes.OID.int8, (row) => row.txBytes],
    ["session_count_vscode", PgTypes.OID.int8, (row) => row.sessionCountVSCode],
    ["session_count_jetbrains", PgTypes.OID.int8, (row) => row.sessionCountJetBrains],
    ["session_count_reconnecting_pty", PgTypes.OID.int8, (row) => row.sessionCountReconnectingPTY],
    ["session_count_ssh", PgTypes.OID.int8, (row) => row.sessionCountSSH],
    ["connection_median_latency_ms", PgTypes.OID.float8, (row) => row.connectionMedianLatencyMs]
  ]

// PostgreSQL has no array of maps whose elements `unnest` would keep whole, so
// the maps travel as one JSON array; set-returning functions in one select list
// advance together, which keeps each map with its row.
const insertStats = (table: string): string => `
INSERT INTO ${table} (${statsColumns.map(([name]) => name).join(", ")}, connections_by_proto)
SELECT ${statsColumns.map((_, index) => `unnest($${index + 1})`).join(", ")},
  jsonb_array_elements($${statsColumns.length + 1}::jsonb)
ON CONFLICT (id) DO NOTHING`

// Fails only for an element type without an array type, and those used have one.
const arrayOf = (values: ReadonlyArray<unknown>, oid: number): PgTypes.Parameter =>
  Result.getOrThrow(PgTypes.array(values, oid))

/**
 * Makes a `Store` of the `PgClient` in context.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<Store.Store["Service"], never, PgClient.PgClient> {
  const sql = yield* PgClient.PgClient

  const metadataTable = escapeIdentifier(options?.metadataTable ?? "workspace_agent_metadata")
  const statsTable = escapeIdentifier(options?.statsTable ?? "workspace_agent_stats")
  const metadataStatement = options?.onlyExisting ? updateMetadata : upsertMetadata
  const writeMetadata = metadataStatement(metadataTable, batch)
  const readMetadata = selectMetadata(metadataTable)
  const appendStats = insertStats(statsTable)
  const listAgents = selectAgents(metadataTable)
  const deleteMetadata = deleteAgents(metadataTable)

  const execute = <Row extends object = never>(
    statement: string,
    parameters: ReadonlyArray<PgTypes.Parameter | null>
  ): Effect.Effect<ReadonlyArray<Row>, Store.StoreError> =>
    Effect.mapError(sql.unsafe<Row>(statement, parameters).withoutTransform, classify)

  return Store.Store.of({
    batchUpdateMetadata: (batch) =>
      Effect.suspend(() => {
        const refused = check.metadataRefusals(batch)
        const isRefused = new Set(refused.map(({ position }) => position))
        const kept = <A>(column: ReadonlyArray<A>): ReadonlyArray<A> =>
          isRefused.size === 0 ? column : column.filter((_, position) => !isRefused.has(position))
        const result = { ...Store.allChanged(batch.agentIds.length - refused.length), refused }
        if (result.changed === 0) return Effect.succeed(result)
        return Effect.as(
          execute(writeMetadata, [
            arrayOf(kept(batch.agentIds), PgTypes.OID.uuid),
            arrayOf(kept(batch.keys), PgTypes.OID.text),
            arrayOf(kept(batch.values), PgTypes.OID.text),
            arrayOf(kept(batch.errors), PgTypes.OID.text),
            arrayOf(kept(batch.collectedAt), PgTypes.OID.timestamptz)
          ]),
          result
        )
      }),

    batchInsertStats: (rows) =>
      Effect.suspend(() => {
        const refused = check.statsRefusals(rows)
        const isRefused = new Set(refused.map(({ position }) => position))
        const kept = rows.filter((_, position) => !isRefused.has(position))
        const result = { ...Store.allChanged(kept.length), refused }
        if (kept.length === 0) return Effect.succeed(result)
        const columns = statsColumns.map(([, oid, of]) => arrayOf(kept.map(of), oid))
        const maps = PgTypes.jsonb(kept.map((row) => row.connectionsByProto))
        return Effect.as(execute(appendStats, [...columns, maps]), result)
      }),

    metadataOf: (agentIds, options) =>
      Effect.suspend(() =>
        agentIds.length === 0
          ? Effect.succeed([])
          : Effect.map(
              execute<MetadataRow>(readMetadata, [
                arrayOf(agentIds, PgTypes.OID.uuid),
                options?.keys === undefined ? null : arrayOf(options.keys, PgTypes.OID.text)
              ]),
              groupByAgent
            )
      ),

    agents: ({ after, limit }) =>
      Effect.map(execute<AgentRow>(listAgents, [PgTypes.uuid(after ?? null), PgTypes.int4(limit)]), (rows) =>
        rows.map((row) => ({
          ...row,
          lastCollectedAt: DateTime.fromDateUnsafe(row.lastCollectedAt)
        }))
      ),

    deleteAgents: (agentIds) =>
      Effect.suspend(() =>
        agentIds.length === 0
          ? Effect.succeed(0)
          : Effect.map(
              execute<{ readonly deleted: number }>(deleteMetadata, [arrayOf(agentIds, PgTypes.OID.uuid)]),
              ([row]) => row?.deleted ?? 0
            )
      )
  })
})

/**
 * Provides the `Store` in the database of the `PgClient` in context. The tables
 * are those that `PgMigrations` makes.
 *
 * **Example** (Writing to PostgreSQL)
 *
 * ```ts
 * import { PgStore } from "effect-metadata-batcher"
 * import * as PgClient from "@effect/sql-pg/PgClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * const StoreLive = PgStore.layer().pipe(
 *   Layer.provide(PgClient.layer({ url: Redacted.make("postgres://localhost/app") }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Store.Store, never, PgClient.PgClient> =>
  Layer.effect(Store.Store, make(options))
