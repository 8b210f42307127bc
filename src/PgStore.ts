/**
 * The `Store` in PostgreSQL, through `@effect/sql-pg`.
 *
 * Every operation is one statement whose text never changes, so that a
 * connection prepares it once, with one array parameter per column.
 * A batch of facts of which PostgreSQL refuses some rows is written without
 * them, by a second statement.
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
import { metadataAtFault, statsAtFault } from "./internal/checkRows.ts"
import * as Salvage from "./internal/salvage.ts"
import { classify, mayBlameData } from "./internal/sqlError.ts"
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
WHERE workspace_agent_id = ANY ($1::uuid[])`

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

const refuse = (atFault: ReadonlyArray<number>): Effect.Effect<never, Store.StoreError> =>
  Effect.fail(Store.rejected(new Error("PostgreSQL would refuse this"), atFault))

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
  const salvageMetadata = Salvage.make(sql, metadataStatement(metadataTable, Salvage.chunk))
  const readMetadata = selectMetadata(metadataTable)
  const appendStats = insertStats(statsTable)

  const execute = <Row extends object = never>(
    statement: string,
    parameters: ReadonlyArray<PgTypes.Parameter>
  ): Effect.Effect<ReadonlyArray<Row>, Store.StoreError> =>
    Effect.mapError(sql.unsafe<Row>(statement, parameters).withoutTransform, classify)

  // Garbage seldom comes once: after a batch with rows at fault, the next is not
  // even tried whole.
  let isSalvaging = false

  const salvage = (
    parameters: ReadonlyArray<PgTypes.Parameter>,
    size: number,
    /** What the batch was first refused for stands where salvaging itself is impossible. */
    otherwise?: Store.StoreError
  ): Effect.Effect<void, Store.StoreError> =>
    Effect.matchEffect(salvageMetadata(parameters), {
      onFailure: (error) => {
        isSalvaging = false
        return Effect.fail(otherwise ?? classify(error))
      },
      onSuccess: ({ doubtful, refused, why }) => {
        const isServersFault = doubtful && refused.length === size
        isSalvaging = refused.length > 0 && !isServersFault
        if (isServersFault) return Effect.fail(Store.unavailable(new Error(why)))
        return isSalvaging
          ? Effect.fail(Store.rejected(new Error(why), refused, { othersWritten: true }))
          : Effect.void
      }
    })

  return Store.Store.of({
    batchUpdateMetadata: (batch) =>
      Effect.suspend(() => {
        if (batch.agentIds.length === 0) return Effect.void
        const atFault = metadataAtFault(batch)
        if (atFault.length > 0) return refuse(atFault)
        const parameters = [
          arrayOf(batch.agentIds, PgTypes.OID.uuid),
          arrayOf(batch.keys, PgTypes.OID.text),
          arrayOf(batch.values, PgTypes.OID.text),
          arrayOf(batch.errors, PgTypes.OID.text),
          arrayOf(batch.collectedAt, PgTypes.OID.timestamptz)
        ]
        const size = batch.agentIds.length
        if (isSalvaging) return salvage(parameters, size)
        return Effect.catch(sql.unsafe(writeMetadata, parameters).withoutTransform, (error) => {
          const failure = classify(error)
          return mayBlameData(error) ? salvage(parameters, size, failure) : Effect.fail(failure)
        }).pipe(Effect.asVoid)
      }),

    batchInsertStats: (rows) =>
      Effect.suspend(() => {
        if (rows.length === 0) return Effect.void
        const atFault = statsAtFault(rows)
        if (atFault.length > 0) return refuse(atFault)
        const columns = statsColumns.map(([, oid, of]) => arrayOf(rows.map(of), oid))
        const maps = PgTypes.jsonb(rows.map((row) => row.connectionsByProto))
        return Effect.asVoid(execute(appendStats, [...columns, maps]))
      }),

    metadataOf: (agentIds) =>
      Effect.suspend(() =>
        agentIds.length === 0
          ? Effect.succeed([])
          : Effect.map(
              execute<MetadataRow>(readMetadata, [arrayOf(agentIds, PgTypes.OID.uuid)]),
              groupByAgent
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
 * import * as PgStore from "effect-metadata-batcher/PgStore"
 * import * as PgClient from "@effect/sql-pg/PgClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * const StoreLive = PgStore.layer().pipe(
 *   Layer.provide(PgClient.layer({ url: Redacted.make("postgres://app@localhost/app") }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Store.Store, never, PgClient.PgClient> =>
  Layer.effect(Store.Store, make(options))
