import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Predicate from "effect/Predicate"
import type { SqlError } from "effect/sql/SqlError"
import * as Store from "../Store.ts"

/**
 * Classes of SQLSTATE that blame the statement's data, by what PostgreSQL's
 * manual calls them. Writing the rows in smaller batches finds the one at fault.
 */
export const blamesData: ReadonlySet<string> = new Set([
  "21", // cardinality violation: a key twice in one batch
  "22", // data exception
  "23", // integrity constraint violation
  "44", // WITH CHECK OPTION violation
  "P0" // PL/pgSQL error: a trigger refused a row
])

/** Classes that are the server's or the session's affair, whatever the rows hold. */
export const blamesServer: ReadonlySet<string> = new Set([
  "08", // connection exception
  "0A", // feature not supported
  "25", // invalid transaction state: a read-only server
  "26", // invalid statement name
  "28", // invalid authorization
  "3D", // invalid database name
  "3F", // invalid schema name
  "40", // transaction rollback: deadlock, serialization
  "42", // syntax error or access rule violation: a table that is missing
  "53", // insufficient resources
  "55", // object not in the state it should be: a lock
  "57", // operator intervention
  "58", // system error
  "F0", // configuration file error
  "HV", // foreign data wrapper error
  "XX" // internal error
])

/** Of class 42, and yet what row-level security says of a row. */
export const insufficientPrivilege = "42501"

/** A NULL in a column that this library does not fill: the table has changed, or a trigger set it. */
export const notNullViolation = "23502"

const queryCanceled = "57014"

export const sqlStateOf = (error: SqlError): string | undefined => {
  const cause = error.reason.cause
  return Predicate.hasProperty(cause, "code") && Predicate.isString(cause.code) ? cause.code : undefined
}

const isCodecError = (cause: unknown): boolean =>
  cause instanceof PgTypes.CodecError || cause instanceof PgProtocol.EncodeError

/**
 * Whether a row may be to blame. Triggers choose codes of their own, and a row
 * too large for an index has the code of a server near transaction ID
 * wraparound: only what becomes of the other rows tells.
 */
export const mayBlameData = (error: SqlError): boolean => {
  const sqlState = sqlStateOf(error)
  return (
    sqlState !== undefined && (sqlState === insufficientPrivilege || !blamesServer.has(sqlState.slice(0, 2)))
  )
}

/**
 * What a failed statement means for the batch it carried, by SQLSTATE and never
 * by message. What is not known to be the data's fault is the store's, and
 * passes: a batch kept too long costs memory, a batch given up costs its rows.
 */
export const classify = (error: SqlError): Store.StoreError => {
  const sqlState = sqlStateOf(error)
  if (sqlState === queryCanceled) return Store.canceled(error)
  if (sqlState !== undefined && blamesData.has(sqlState.slice(0, 2))) return Store.rejected(error)
  return isCodecError(error.reason.cause) ? Store.rejected(error) : Store.unavailable(error)
}
