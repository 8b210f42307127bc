import type * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { quote } from "./names.ts"
import { cutoff, lockOf } from "./retentionStatements.ts"
import { sqlStateOf } from "./sqlError.ts"

/** Made ahead of the one that holds the present, unless told otherwise. */
export const defaultAhead = 3

/** A statement that makes or drops a partition locks the whole table: it waits this long for it, and no insert longer behind it. */
const lockTimeout = "50ms"

/** Attaching a partition reads the default one through, which may be large. */
const statementTimeout = "100ms"

const lockNotAvailable = "55P03"
const queryCanceled = "57014"
const checkViolation = "23514"

/**
 * How a table is laid out: `"plain"` is one table, `"time"` is partitioned by
 * ranges of `created_at` and nothing else, `"other"` in some other way.
 */
export type Layout = "plain" | "time" | "other"

const selectLayout = `
SELECT CASE
  WHEN p.partrelid IS NULL THEN 'plain'
  WHEN p.partstrat = 'r' AND p.partnatts = 1 AND a.attname = 'created_at' THEN 'time'
  ELSE 'other'
END AS layout
FROM (SELECT $1::text::regclass::oid AS oid) AS t
LEFT JOIN pg_partitioned_table AS p ON p.partrelid = t.oid
LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = p.partattrs[0]`

export const layoutOf = (sql: PgClient.PgClient, table: string): Effect.Effect<Layout, SqlError> =>
  Effect.map(
    sql.unsafe<{ layout: Layout }>(selectLayout, [PgTypes.text(table)]).withoutTransform,
    ([row]) => row?.layout ?? "plain"
  )

const selectLeaves = `
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM pg_partition_tree($1::text::regclass) AS tree
JOIN pg_class AS c ON c.oid = tree.relid AND c.relkind = 'r'
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE tree.isleaf
ORDER BY 1`

// The bounds as PostgreSQL prints them, in the session's own time zone, which
// reads them back. MINVALUE and MAXVALUE have no quotes and become NULL.
const partitions = `
SELECT format('%I.%I', n.nspname, c.relname) AS name,
  b.bound = 'DEFAULT' AS "isDefault",
  substring(b.bound FROM 'FROM \\(''([^'']*)''\\)')::timestamptz AS lower,
  substring(b.bound FROM 'TO \\(''([^'']*)''\\)')::timestamptz AS upper
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p')
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b(bound)
WHERE i.inhparent = $1::text::regclass AND NOT i.inhdetachpending`

const selectDefault = `SELECT name FROM (${partitions}) AS p WHERE "isDefault"`

const selectExpired = `SELECT name FROM (${partitions}) AS p WHERE upper <= ${cutoff("$2", "$3")} ORDER BY upper`

const selectNames = (sql: PgClient.PgClient, text: string, parameters: ReadonlyArray<PgTypes.Parameter>) =>
  Effect.map(sql.unsafe<{ name: string }>(text, parameters).withoutTransform, (rows) =>
    rows.map(({ name }) => name)
  )

/** The tables that hold the rows, quoted, where the table itself holds none. */
export const leavesOf = (sql: PgClient.PgClient, table: string) =>
  selectNames(sql, selectLeaves, [PgTypes.text(table)])

/** The partition that takes what no other does, if there is one. */
export const defaultOf = (sql: PgClient.PgClient, table: string) =>
  selectNames(sql, selectDefault, [PgTypes.text(table)])

/** Partitions all of whose rows were created before a time, and longer ago than an age; oldest first. */
export const expiredOf = (sql: PgClient.PgClient, table: string, before: number, ageMillis: number) =>
  selectNames(sql, selectExpired, [
    PgTypes.text(table),
    PgTypes.timestamptz(before),
    PgTypes.float8(ageMillis)
  ])

/**
 * Runs a change of a table's partitions in a transaction, unless another replica
 * is at one. Says whether it was made: not while the table is locked.
 */
const change = <E>(
  sql: PgClient.PgClient,
  table: string,
  statements: Effect.Effect<unknown, E | SqlError>
): Effect.Effect<boolean, E | SqlError> =>
  Effect.flatMap(
    sql.unsafe<{ mine: boolean }>(
      `SELECT set_config('lock_timeout', '${lockTimeout}', true),
        set_config('statement_timeout', '${statementTimeout}', true), ${lockOf("$1")} AS mine`,
      [PgTypes.text(table)]
      // A pooler may lead to a session that has prepared nothing, which would end the transaction.
    ).unprepared,
    ([row]) => (row?.mine ? Effect.as(statements, true) : Effect.succeed(false))
  ).pipe(sql.withTransaction)

const isBusy = (error: SqlError): boolean => {
  const sqlState = sqlStateOf(error)
  return sqlState === lockNotAvailable || sqlState === queryCanceled
}

const whenBusy = (effect: Effect.Effect<boolean, SqlError>): Effect.Effect<boolean, SqlError> =>
  Effect.catch(effect, (error) => (isBusy(error) ? Effect.succeed(false) : Effect.fail(error)))

/** Drops a partition with all its rows; says whether it did. */
export const drop = (sql: PgClient.PgClient, table: string, name: string): Effect.Effect<boolean, SqlError> =>
  whenBusy(change(sql, table, sql.unsafe(`DROP TABLE IF EXISTS ${name}`).unprepared))

interface Span {
  readonly name: string
  readonly from: string
  readonly to: string
}

// As wide as the newest one: `age` tells months and days apart where the bounds
// begin them, so that a table of months goes on in months. After a gap the
// series begins where it would have been by now.
const selectAhead = `
WITH RECURSIVE newest AS (
  SELECT upper AT TIME ZONE 'UTC' AS upper,
    age(upper AT TIME ZONE 'UTC', lower AT TIME ZONE 'UTC') AS width
  FROM (${partitions}) AS p
  WHERE lower IS NOT NULL AND upper IS NOT NULL
    AND NOT EXISTS (SELECT FROM (${partitions}) AS q WHERE q.upper IS NULL AND NOT q."isDefault")
  ORDER BY p.upper DESC LIMIT 1
), span AS (
  SELECT upper AS lower, upper + width AS upper, width, 0 AS n FROM newest
  UNION ALL
  SELECT upper, upper + width, width, n + 1 FROM span WHERE n < 100000 AND upper <= $2::timestamp + $3 * width
)
SELECT c.relname || '_' || to_char(lower, CASE WHEN lower = date_trunc('day', lower) THEN 'YYYYMMDD' ELSE 'YYYYMMDD_HH24MI' END) AS name,
  n.nspname AS schema, lower::text || '+00' AS "from", upper::text || '+00' AS "to"
FROM span
CROSS JOIN pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = $1::text::regclass AND span.upper > $2::timestamp AND span.lower <= $2::timestamp + $3 * width
ORDER BY lower`

// Attaching locks the table for others' changes of it only; `CREATE TABLE …
// PARTITION OF` would lock it for inserts too.
const makeOne = (sql: PgClient.PgClient, table: string, span: Span & { readonly schema: string }) => {
  const name = `${quote(span.schema)}.${quote(span.name)}`
  const made = change(
    sql,
    table,
    Effect.andThen(
      sql.unsafe(
        `CREATE TABLE ${name} (LIKE ${table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)`
      ).unprepared,
      sql.unsafe(
        `ALTER TABLE ${table} ATTACH PARTITION ${name} FOR VALUES FROM ('${span.from}') TO ('${span.to}')`
      ).unprepared
    )
  )
  // Rows of that time are in the default partition already. They stay, and so does what joins them.
  return Effect.catch(whenBusy(made), (error) =>
    sqlStateOf(error) === checkViolation ? Effect.succeed(false) : Effect.fail(error)
  )
}

/**
 * Makes the partitions that are missing of the one that holds `now` and `ahead`
 * more, each as wide as the newest; says how many. None where the newest is
 * without an end, or there is none to go by.
 */
export const makeAhead = (
  sql: PgClient.PgClient,
  table: string,
  now: number,
  ahead: number
): Effect.Effect<number, SqlError> =>
  Effect.flatMap(
    sql.unsafe<Span & { schema: string }>(selectAhead, [
      PgTypes.text(table),
      PgTypes.timestamp(now),
      PgTypes.int4(ahead)
    ]).withoutTransform,
    (spans) =>
      Effect.map(
        Effect.forEach(spans, (span) => makeOne(sql, table, span)),
        (made) => made.filter((isMade) => isMade).length
      )
  )

const selectFirst = `
SELECT format('%I.%I', n.nspname, c.relname || '_' || to_char(d, 'YYYYMMDD')) AS name,
  d::text || '+00' AS "from", (d + interval '1 day')::text || '+00' AS "to",
  format('%I.%I', n.nspname, c.relname || '_default') AS "nameOfDefault"
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN generate_series(0, $2::int) AS day
CROSS JOIN LATERAL (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') + day * interval '1 day') AS t(d)
WHERE c.oid = $1::text::regclass`

/**
 * The first partitions of a new table that is partitioned by `created_at`: one
 * for rows that no other takes, and one a day, from today.
 */
export const makeFirst = Effect.fnUntraced(function* (
  sql: SqlClient.SqlClient,
  table: string
): Effect.fn.Return<void, SqlError> {
  const days = yield* sql.unsafe<Span & { nameOfDefault: string }>(selectFirst, [
    PgTypes.text(table),
    PgTypes.int4(defaultAhead)
  ]).withoutTransform
  yield* sql.unsafe(`CREATE TABLE ${days[0]?.nameOfDefault} PARTITION OF ${table} DEFAULT`)
  for (const { from, name, to } of days) {
    yield* sql.unsafe(`CREATE TABLE ${name} PARTITION OF ${table} FOR VALUES FROM ('${from}') TO ('${to}')`)
  }
})
