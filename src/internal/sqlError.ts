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
  "54", // program limit exceeded: a row or an array too large
  "P0" // PL/pgSQL error: a trigger refused a row
])

const queryCanceled = "57014"

export const sqlStateOf = (error: SqlError): string | undefined => {
  const cause = error.reason.cause
  return Predicate.hasProperty(cause, "code") && Predicate.isString(cause.code) ? cause.code : undefined
}

const isCodecError = (cause: unknown): boolean =>
  cause instanceof PgTypes.CodecError || cause instanceof PgProtocol.EncodeError

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
