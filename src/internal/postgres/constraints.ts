import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { DatabaseFault } from "../../Store.ts"
import type { Refusal } from "../batcher/writeResult.ts"
import { arrayOf } from "./arrays.ts"
import { quote } from "./names.ts"
import type { Run } from "./session.ts"

// Which rows of a batch the table's constraints refuse is asked of the server in
// one SELECT over the same parameters as the write. A read takes no transaction
// id, and it finds all rows at once, however many there are.

/** The table a batch is written to, as far as its constraints are concerned. */
export interface Screened {
  /** The table as SQL text. */
  readonly table: string
  /** The columns that are written, in the order of `source`. */
  readonly columns: ReadonlyArray<string>
  /** Those that identify a row. */
  readonly identity: ReadonlyArray<string>
  /** The rows as a FROM item, without alias. */
  readonly source: string
  readonly parameterCount: number
}

/** The constraints that can be looked at without writing: those on nothing but columns that are written. */
interface Catalog {
  /** Changes with every change of the table's columns and constraints. */
  readonly version: string
  readonly hasTriggers: boolean
  readonly types: Readonly<Record<string, string>> | null
  readonly checks: ReadonlyArray<{ readonly name: string; readonly expression: string }> | null
  readonly lengths: ReadonlyArray<{ readonly column: string; readonly length: number }> | null
  readonly parents: ReadonlyArray<{
    readonly name: string
    readonly parent: string
    readonly columns: ReadonlyArray<string>
    readonly keys: ReadonlyArray<string>
  }> | null
}

const versionOf = (table: string): string => `concat_ws('/',
    (SELECT string_agg(oid::text || ':' || xmin::text, ',' ORDER BY oid) FROM pg_catalog.pg_constraint
      WHERE conrelid = to_regclass(${table})),
    (SELECT string_agg(xmin::text, ',' ORDER BY attnum) FROM pg_catalog.pg_attribute
      WHERE attrelid = to_regclass(${table}) AND attnum > 0),
    (SELECT string_agg(oid::text || ':' || xmin::text, ',' ORDER BY oid) FROM pg_catalog.pg_trigger
      WHERE tgrelid = to_regclass(${table})))`

// Left out: constraints that are not enforced, or on columns that are not
// written, and parents that may not be read. A trigger that runs before a row is
// written may change it, so that nothing can be said of the row beforehand.
const readCatalog = `
WITH filled AS (
  SELECT array_agg(attnum) AS numbers FROM pg_catalog.pg_attribute
  WHERE attrelid = to_regclass($1) AND attname = ANY ($2::text[]) AND NOT attisdropped
), enforced AS (
  SELECT c.* FROM pg_catalog.pg_constraint c, filled
  WHERE conrelid = to_regclass($1) AND conkey <@ filled.numbers AND cardinality(conkey) > 0
    AND coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true)
    AND NOT coalesce((to_jsonb(c) ->> 'conperiod')::boolean, false)
)
SELECT ${versionOf("$1")} AS version,
  EXISTS (SELECT FROM pg_catalog.pg_trigger
    WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 3 = 3) AS "hasTriggers",
  (SELECT json_object_agg(a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL))
    FROM filled, pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass($1) AND a.attnum = ANY (filled.numbers)) AS types,
  (SELECT json_agg(json_build_object('name', conname, 'expression', pg_get_expr(conbin, conrelid)) ORDER BY conname)
    FROM enforced WHERE contype = 'c') AS checks,
  (SELECT json_agg(json_build_object('column', attname, 'length', atttypmod - 4) ORDER BY attnum)
    FROM filled, pg_catalog.pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum = ANY (filled.numbers)
      AND atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod > 4) AS lengths,
  (SELECT json_agg(json_build_object('name', conname, 'parent', confrelid::regclass::text,
      'columns', (SELECT json_agg(attname ORDER BY k.n) FROM unnest(conkey) WITH ORDINALITY k(number, n)
        JOIN pg_catalog.pg_attribute ON attrelid = conrelid AND attnum = k.number),
      'keys', (SELECT json_agg(attname ORDER BY k.n) FROM unnest(confkey) WITH ORDINALITY k(number, n)
        JOIN pg_catalog.pg_attribute ON attrelid = confrelid AND attnum = k.number)) ORDER BY conname)
    FROM enforced
    WHERE contype = 'f' AND has_table_privilege(confrelid, 'SELECT') AND NOT row_security_active(confrelid)
  ) AS parents`

/** A condition that no row may meet, and what the server would say of a row that does. */
interface Condition {
  readonly breaks: string
  readonly why: string
}

interface Screen {
  readonly version: string
  readonly conditions: ReadonlyArray<Condition>
  readonly text: string
}

const conditionsOf = (catalog: Catalog, { identity, table }: Screened): ReadonlyArray<Condition> => {
  const unquoted = table.replaceAll('"', "")
  const isNew = `NOT EXISTS (SELECT FROM ${table} AS t WHERE ${identity
    .map((column) => `t.${quote(column)} = u.${quote(column)}`)
    .join(" AND ")})`
  return [
    ...(catalog.checks ?? []).map(({ expression, name }) => ({
      breaks: `(${expression}) IS FALSE`,
      why: new DatabaseFault({ sqlState: "23514", constraint: name, table: unquoted }).message
    })),
    // What is too long by spaces only is cut off, not refused.
    ...(catalog.lengths ?? []).map(({ column, length }) => ({
      breaks: `rtrim(substr(u.${quote(column)}::text, ${length + 1}), ' ') <> ''`,
      why: new DatabaseFault({ sqlState: "22001", table: unquoted, column }).message
    })),
    // A row that is there already is not looked up in the parent again.
    ...(catalog.parents ?? []).map(({ columns, keys, name, parent }) => ({
      breaks: `NOT EXISTS (SELECT FROM ${parent} AS p WHERE ${keys
        .map((key, i) => `p.${quote(key)} = u.${quote(columns[i] ?? "")}`)
        .join(" AND ")}) AND ${isNew}`,
      why: new DatabaseFault({ sqlState: "23503", constraint: name, table: unquoted }).message
    }))
  ]
}

const screenOf = (catalog: Catalog, screened: Screened): Screen => {
  const conditions = catalog.hasTriggers ? [] : conditionsOf(catalog, screened)
  const columns = screened.columns.map(quote)
  const typed = screened.columns.map(
    (column) => `${quote(column)}::${catalog.types?.[column] ?? "text"} AS ${quote(column)}`
  )
  const cases = conditions.map(({ breaks }, index) => `WHEN ${breaks} THEN ${index}`)
  return {
    version: catalog.version,
    conditions,
    text: `
SELECT position, broken, ${versionOf(`$${screened.parameterCount + 1}`)} AS version
FROM (
  SELECT "#" - 1 AS position, CASE ${cases.join("\n    ")} END AS broken
  FROM (SELECT "#"::int AS "#", ${typed.join(", ")}
    FROM ${screened.source} WITH ORDINALITY AS s(${columns.join(", ")}, "#")) AS u
) AS screened
WHERE broken IS NOT NULL
ORDER BY position`
  }
}

interface Found {
  readonly position: number
  readonly broken: number
  readonly version: string
}

/**
 * Makes a function that says which rows break a constraint of the table. It
 * names none where it cannot tell. What it knows of the table is read when it is
 * needed first, and again when the table has changed.
 */
export const make = (run: Run, screened: Screened) => {
  let known: Screen | undefined
  const name = PgTypes.text(screened.table)

  const read = Effect.map(
    run<Catalog>(readCatalog, [name, arrayOf(screened.columns, PgTypes.OID.text)]),
    ({ rows: [catalog] }) => {
      known = catalog === undefined ? undefined : screenOf(catalog, screened)
      return known
    }
  )

  const ask = (
    screen: Screen | undefined,
    parameters: ReadonlyArray<PgTypes.Parameter>
  ): Effect.Effect<ReadonlyArray<Found>, SqlError> =>
    screen === undefined || screen.conditions.length === 0
      ? Effect.succeed([])
      : Effect.map(run<Found>(screen.text, [...parameters, name]), ({ rows }) => rows)

  const refusalsOf = (found: ReadonlyArray<Found>): ReadonlyArray<Refusal> =>
    found.map(({ broken, position }) => ({ position, why: known?.conditions[broken]?.why ?? "" }))

  const readAndAsk = (parameters: ReadonlyArray<PgTypes.Parameter>) =>
    Effect.flatMap(read, (screen) => ask(screen, parameters))

  /** What is known may be out of date, if it leads to an error, or to nothing where something was expected. */
  return (
    parameters: ReadonlyArray<PgTypes.Parameter>,
    expectsSome: boolean
  ): Effect.Effect<ReadonlyArray<Refusal>> =>
    Effect.suspend(() => {
      const screen = known
      if (screen === undefined) return readAndAsk(parameters)
      return Effect.matchEffect(ask(screen, parameters), {
        onFailure: () => readAndAsk(parameters),
        onSuccess: (found) => {
          const isStale = found.length === 0 ? expectsSome : found[0]?.version !== screen.version
          return isStale ? readAndAsk(parameters) : Effect.succeed(found)
        }
      })
    }).pipe(
      Effect.map(refusalsOf),
      Effect.catch(() => Effect.succeed([]))
    )
}
