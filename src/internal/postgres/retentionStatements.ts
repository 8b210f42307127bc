/**
 * Takes the right to delete from a table, or not, until the transaction ends:
 * a lock of the session would stay behind with a pooler's server connection.
 */
export const lockOf = (table: string): string =>
  `pg_try_advisory_xact_lock(hashtextextended('effect-metadata-batcher retention of ' || ${table}, 0))`

// The server's clock has a say too, lest an application's clock that is ahead
// deletes what is young.
export const cutoff = (at: string, age: string): string =>
  `least(${at}::timestamptz, now() - ${age}::float8 * interval '1 millisecond')`

/** What a deleting statement answers. */
export interface Deleted {
  /** Whether it was this replica's turn. */
  readonly mine: boolean
  readonly rows: number
  /** The newest time among the deleted rows, in microseconds since 1970. */
  readonly upTo: number | null
}

/**
 * Deletes up to `size` rows of the oldest. Parameters: the table that is locked,
 * the time up to which rows go, their age, and where to begin: index entries of
 * rows that are deleted and not vacuumed yet cost as much to pass as rows.
 *
 * The size stands in the text: with a parameter for it the planner reckons with
 * a tenth of the table.
 */
export const deleteStats = (leaf: string, size: number): string => `
WITH turn AS MATERIALIZED (SELECT ${lockOf("$1::text")} AS mine),
old AS MATERIALIZED (
  SELECT t.ctid AS id
  FROM ${leaf} AS t
  WHERE (SELECT mine FROM turn) AND t.created_at < ${cutoff("$2", "$3")}
    AND t.created_at >= to_timestamp($4::float8 / 1e6)
  ORDER BY t.created_at LIMIT ${size}
),
deleted AS (
  DELETE FROM ${leaf} AS t WHERE t.ctid = ANY (ARRAY(SELECT id FROM old))
  RETURNING t.created_at
)
SELECT mine, (SELECT count(*)::int FROM deleted) AS rows,
  (SELECT (extract(epoch FROM max(created_at)) * 1e6)::float8 FROM deleted) AS "upTo"
FROM turn`

/** A page of a walk along the primary key. */
export interface Page {
  /** The last agent of the page; null at the end of the table. */
  readonly last: string | null
  readonly unseen: ReadonlyArray<string>
}

// For each agent, by the key. NOT EXISTS would let the planner read the whole table instead.
const isUnseen = (table: string, agent: string, since: string): string => `(
  SELECT true FROM ${table} AS n
  WHERE n.workspace_agent_id = ${agent} AND n.collected_at >= ${since} LIMIT 1
) IS NULL`

/**
 * Looks at the next `size` agents and names those of which no fact is as new as
 * the cutoff. Of each agent the first row is fetched, and others only where that
 * one is old: the index has no times, and most agents are seen. Parameters: the
 * agent to begin after, the cutoff and the age.
 */
export const selectUnseen = (table: string, size: number, isFirst: boolean): string => `
WITH RECURSIVE page AS (
  (SELECT workspace_agent_id AS id, collected_at AS at, 1 AS n FROM ${table}
    WHERE workspace_agent_id ${isFirst ? ">=" : ">"} $1 ORDER BY workspace_agent_id, key LIMIT 1)
  UNION ALL
  SELECT next.*, page.n + 1 FROM page CROSS JOIN LATERAL (
    SELECT workspace_agent_id, collected_at FROM ${table}
    WHERE workspace_agent_id > page.id ORDER BY workspace_agent_id, key LIMIT 1
  ) AS next WHERE page.n < ${size}
)
SELECT (SELECT id::text FROM page ORDER BY n DESC LIMIT 1) AS last,
  coalesce(array_agg(id::text) FILTER (WHERE at < ${cutoff("$2", "$3")}
    AND ${isUnseen(table, "page.id", cutoff("$2", "$3"))}), '{}') AS unseen
FROM page`

/**
 * Deletes up to `size` rows of agents that are unseen still. A row that a writer
 * has locked is passed over: an agent may come back just now, and a statement
 * that waits for nobody deadlocks with nobody. Parameters: the table, the
 * cutoff, the age and the agents.
 */
export const deleteUnseen = (table: string, size: number): string => `
WITH turn AS MATERIALIZED (SELECT ${lockOf("$1::text")} AS mine),
old AS MATERIALIZED (
  SELECT t.workspace_agent_id AS a, t.key AS k
  FROM unnest($4::uuid[]) AS unseen(id)
  JOIN ${table} AS t ON t.workspace_agent_id = unseen.id
  WHERE (SELECT mine FROM turn) AND t.collected_at < ${cutoff("$2", "$3")}
    AND ${isUnseen(table, "unseen.id", cutoff("$2", "$3"))}
  LIMIT ${size}
  FOR UPDATE OF t SKIP LOCKED
),
deleted AS (
  DELETE FROM ${table} AS t USING old
  WHERE t.workspace_agent_id = old.a AND t.key = old.k AND t.collected_at < ${cutoff("$2", "$3")}
  RETURNING 1
)
SELECT mine, (SELECT count(*)::int FROM deleted) AS rows, NULL AS "upTo" FROM turn`
