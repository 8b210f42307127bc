import type * as PgClient from "@effect/sql-pg/PgClient"
import type * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import { blamesData, blamesServer, insufficientPrivilege, notNullViolation, sqlStateOf } from "./sqlError.ts"

/**
 * How many rows are tried at once. With 1 % of the rows at fault, 16 to 64 take
 * the same time within what can be measured; a single one takes twice as long.
 */
const chunkSize = 32

/** The rows that are tried at once, for the statement that writes them. */
export const chunk =
  "unnest(all_agents[low:high], all_keys[low:high], all_values[low:high], all_errors[low:high], all_times[low:high])"

const listed = (classes: ReadonlySet<string>): string => `('{${Array.from(classes).join()}}')`

// Chunks are taken off the end of `work`, and both halves of one that is refused
// put back there, so that rows are locked in the same order as by any writer.
// No variable may be called what a column or an alias of `writeChunk` is called.
const body = (writeChunk: string): string => `
DECLARE
  all_positions int[];
  work int[] := '{}';
  low int; high int; middle int;
BEGIN
  refused := '{}';
  doubtful := false;
  SET CONSTRAINTS ALL IMMEDIATE;
  SELECT array_agg(a), array_agg(k), array_agg(v), array_agg(e), array_agg(c), array_agg(p)
  INTO all_agents, all_keys, all_values, all_errors, all_times, all_positions
  FROM (
    SELECT * FROM unnest(all_agents, all_keys, all_values, all_errors, all_times)
      WITH ORDINALITY AS u(a, k, v, e, c, p)
    ORDER BY a, k
  ) AS sorted;
  FOR number IN REVERSE (cardinality(all_agents) - 1) / ${chunkSize} .. 0 LOOP
    work := work || (number * ${chunkSize} + 1) || least((number + 1) * ${chunkSize}, cardinality(all_agents));
  END LOOP;
  WHILE cardinality(work) > 0 LOOP
    low := work[cardinality(work) - 1];
    high := work[cardinality(work)];
    work := trim_array(work, 2);
    BEGIN
      ${writeChunk};
    EXCEPTION WHEN OTHERS THEN
      IF left(SQLSTATE, 2) = ANY ${listed(blamesServer)} AND SQLSTATE <> '${insufficientPrivilege}' THEN
        RAISE;
      ELSIF low = high THEN
        refused := refused || all_positions[low];
        why := SQLERRM;
        doubtful := doubtful OR left(SQLSTATE, 2) <> ALL ${listed(blamesData)} OR SQLSTATE = '${notNullViolation}';
      ELSE
        middle := (low + high) / 2;
        work := work || (middle + 1) || high || low || middle;
      END IF;
    END;
  END LOOP;
END`

// What a connection answers that has no temporary objects yet, or other ones.
const isMissing = (error: SqlError): boolean => {
  const sqlState = sqlStateOf(error)
  return sqlState === "3F000" || sqlState === "42883"
}

/** The positions of the rows that were refused, and why one of them was. */
export interface Salvaged {
  readonly refused: ReadonlyArray<number>
  readonly why: string
  /** Whether that might not be the rows' fault, which it is not if none was written. */
  readonly doubtful: boolean
}

/**
 * Writes the rows of a batch that the database takes and says which it refuses,
 * in one statement whatever their number: a PL/pgSQL function halves the batch
 * within the server. The function is a temporary one, made when a connection
 * needs it first and gone with the connection. Fails, and writes nothing, for
 * every reason that is not in the rows, one being a database that grants no
 * temporary objects.
 *
 * For 500 rows this takes 1.3 times as long as the plain statement if all are
 * clean, twice as long with 5 at fault, and 8 times with all 500.
 */
export const make = (
  sql: PgClient.PgClient,
  writeChunk: string
): ((batch: ReadonlyArray<PgTypes.Parameter>) => Effect.Effect<Salvaged, SqlError>) => {
  // Named by its text: a pooler may lend the connections to other versions and tables as well.
  const text = body(writeChunk)
  const name = `pg_temp.effect_metadata_batcher_salvage_${(Hash.string(text) >>> 0).toString(16)}`
  const create = `
CREATE OR REPLACE FUNCTION ${name}(
  all_agents uuid[], all_keys text[], all_values text[], all_errors text[], all_times timestamptz[],
  OUT refused int[], OUT why text, OUT doubtful boolean
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $salvage$${text}$salvage$`
  const call = `SELECT refused, why, doubtful FROM ${name}($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])`

  return (batch) => {
    const salvage = Effect.gen(function* () {
      const [salvaged] = yield* sql.unsafe<Salvaged>(call, batch).withoutTransform
      if (salvaged === undefined) {
        return yield* new SqlError({ reason: new UnknownError({ cause: new Error("no result") }) })
      }
      return { ...salvaged, refused: salvaged.refused.map((position) => position - 1).sort((a, b) => a - b) }
    })
    return Effect.catch(salvage, (error) =>
      isMissing(error)
        ? // Another connection may be given, one that has the function: hence OR REPLACE.
          sql.withTransaction(Effect.andThen(sql.unsafe(create).unprepared, salvage))
        : Effect.fail(error)
    )
  }
}
