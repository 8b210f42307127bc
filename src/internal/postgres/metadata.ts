import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import type { MetadataBatch } from "../../Metadata.ts"
import type { StoreError, WriteResult } from "../../Store.ts"
import { arrayOf } from "./arrays.ts"
import * as check from "./check.ts"
import type { Run } from "./session.ts"
import * as Write from "./write.ts"

const source = "unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])"

// Set-returning functions in one select list advance together. Measured, the
// server works 8 % less than with the same in FROM, which it stores first.
const selected = `(SELECT unnest($1::uuid[]) AS a, unnest($2::text[]) AS k, unnest($3::text[]) AS v,
  unnest($4::text[]) AS e, unnest($5::timestamptz[]) AS c)`

export interface Options {
  /** The table as SQL text. */
  readonly table: string
  readonly onlyExisting: boolean
  /** Milliseconds, or infinity. */
  readonly maxAhead: number
  /** Milliseconds; 0 waits for ever. */
  readonly lockTimeout: number
}

/** The newest wins, but a row dated too far ahead of the server's clock gives way to any. */
const isNotOlder = (held: string, given: string, maxAhead: number): string =>
  Number.isFinite(maxAhead)
    ? `(${given} >= ${held} OR ${held} > now() + interval '${Math.round(maxAhead)} milliseconds')`
    : `${given} >= ${held}`

// Set within the statement, for the statement alone: a pooler may lend the
// session to others. It is asked for once, before any row is locked.
const setLockTimeout = (lockTimeout: number): string =>
  `(SELECT set_config('lock_timeout', '${Math.round(lockTimeout)}', true)) IS NOT NULL`

// A key with half a surrogate pair becomes another key on its way to the server,
// which may be in the batch as well. A statement that meets both fails, or takes
// either: then the newest has to be picked first.
const newestOfEach = `(SELECT DISTINCT ON (a, k) * FROM ${source} AS r(a, k, v, e, c) ORDER BY a, k, c DESC)`

// The order is the server's, the same for every writer, so that two of them
// never lock the same rows in opposite order.
const upsert = ({ lockTimeout, maxAhead, table }: Options, rows: string): string => `
INSERT INTO ${table} AS t (workspace_agent_id, key, value, error, collected_at)
SELECT a, k, v, e, c FROM ${rows} AS u
WHERE ${setLockTimeout(lockTimeout)}
ORDER BY a, k
ON CONFLICT (workspace_agent_id, key) DO UPDATE
SET value = excluded.value, error = excluded.error, collected_at = excluded.collected_at
WHERE ${isNotOlder("t.collected_at", "excluded.collected_at", maxAhead)}`

const update = ({ lockTimeout, maxAhead, table }: Options): string => `
WITH l AS MATERIALIZED (
  SELECT t.workspace_agent_id AS a, t.key AS k, u.v, u.e, u.c
  FROM ${table} AS t
  JOIN ${newestOfEach} AS u ON t.workspace_agent_id = u.a AND t.key = u.k
  WHERE ${isNotOlder("t.collected_at", "u.c", maxAhead)} AND ${setLockTimeout(lockTimeout)}
  ORDER BY 1, 2
  FOR NO KEY UPDATE OF t
)
UPDATE ${table} AS t
SET value = l.v, error = l.e, collected_at = l.c
FROM l
WHERE t.workspace_agent_id = l.a AND t.key = l.k
  AND ${isNotOlder("t.collected_at", "l.c", maxAhead)}`

// Why rows did not change: the table holds a newer one, or none, or something
// else kept it as it was, a trigger for one.
const unchanged = (table: string): string => `
SELECT (u.n - 1)::int AS position, t.key IS NULL AS "isMissing"
FROM ${source} WITH ORDINALITY AS u(a, k, v, e, c, n)
LEFT JOIN ${table} AS t ON t.workspace_agent_id = u.a AND t.key = u.k
WHERE t.key IS NULL OR t.collected_at <> u.c OR t.value <> u.v OR t.error <> u.e
ORDER BY CASE WHEN t.key IS NULL THEN 0 WHEN t.collected_at > u.c THEN 1 ELSE 2 END, u.n`

// Never waits for a row, so it cannot deadlock. What the other transaction has
// inserted and not committed yet is not to be seen.
const locked = (table: string): string => `
WITH free AS MATERIALIZED (
  SELECT t.workspace_agent_id AS a, t.key AS k
  FROM ${table} AS t JOIN ${source} AS u(a, k, v, e, c) ON t.workspace_agent_id = u.a AND t.key = u.k
  FOR NO KEY UPDATE OF t SKIP LOCKED
)
SELECT (u.n - 1)::int AS position
FROM ${source} WITH ORDINALITY AS u(a, k, v, e, c, n)
JOIN ${table} AS t ON t.workspace_agent_id = u.a AND t.key = u.k
WHERE NOT EXISTS (SELECT FROM free WHERE free.a = u.a AND free.k = u.k)
ORDER BY 1`

const target = (options: Options): Write.Target => ({
  screened: {
    table: options.table,
    columns: ["workspace_agent_id", "key", "value", "error", "collected_at"],
    identity: ["workspace_agent_id", "key"],
    source,
    parameterCount: 5
  },
  write: options.onlyExisting ? update(options) : upsert(options, selected),
  writeDistinct: options.onlyExisting ? undefined : upsert(options, newestOfEach),
  unchanged: unchanged(options.table),
  heldIsChanged: false,
  locked: locked(options.table),
  none: parametersOf({ agentIds: [], keys: [], values: [], errors: [], collectedAt: [] })
})

const parametersOf = (batch: MetadataBatch): ReadonlyArray<PgTypes.Parameter> => [
  arrayOf(batch.agentIds, PgTypes.OID.uuid),
  arrayOf(batch.keys, PgTypes.OID.text),
  arrayOf(batch.values, PgTypes.OID.text),
  arrayOf(batch.errors, PgTypes.OID.text),
  arrayOf(batch.collectedAt, PgTypes.OID.timestamptz)
]

const rowsOf = (batch: MetadataBatch): Write.Rows => {
  const size = batch.agentIds.length
  return {
    size,
    refused: check.metadataRefusals(batch),
    parameters: (positions) => {
      if (positions.length === size) return parametersOf(batch)
      const at = <A>(column: ReadonlyArray<A>) => positions.map((position) => column[position] as A)
      return parametersOf({
        agentIds: at(batch.agentIds),
        keys: at(batch.keys),
        values: at(batch.values),
        errors: at(batch.errors),
        collectedAt: at(batch.collectedAt)
      })
    }
  }
}

/** Makes a function that writes to the table of facts. */
export const make = (run: Run, options: Options) => {
  const write = Write.make(run, target(options))
  return (batch: MetadataBatch): Effect.Effect<WriteResult, StoreError> =>
    Effect.suspend(() => write(rowsOf(batch)))
}
