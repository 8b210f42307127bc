import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Predicate from "effect/Predicate"
import { ConnectionError, SqlError, UnknownError } from "effect/sql/SqlError"
import * as Store from "../../Store.ts"

// What an error means is decided by its SQLSTATE and never by its message, which
// is in the server's language.

/** A row is locked by another transaction for longer than the lock timeout. */
export const lockNotAvailable = "55P03"
export const readOnlyTransaction = "25006"
/** `ON CONFLICT` names columns that no unique index is on. */
export const invalidColumnReference = "42P10"
/** A row of the statement is the same as another of its rows. */
export const cardinalityViolation = "21000"
const queryCanceled = "57014"

/** A deadlock, or a transaction that another one came before: the same statement will do. */
const passing: ReadonlySet<string> = new Set(["40P01", "40001"])

/** What a constraint of the table says of a row: it can be asked which rows break it. */
const broken: ReadonlySet<string> = new Set(["22001", "23502", "23503", "23514"])

/**
 * Classes that blame the data of a statement. In the others a row may be at
 * fault as well, because triggers raise whatever they like: there the table has
 * to be asked.
 */
const blamesData: ReadonlySet<string> = new Set([
  "21", // cardinality violation
  "22", // data exception
  "23", // integrity constraint violation
  "44", // WITH CHECK OPTION violation
  "P0" // PL/pgSQL error: a trigger refused a row
])

/** What the server said of a failure, if it was the server that said something. */
const fieldsOf = (cause: unknown): PgProtocol.ErrorFields | undefined =>
  cause instanceof Error &&
  Predicate.hasProperty(cause, "severity") &&
  Predicate.hasProperty(cause, "code") &&
  Predicate.isString(cause.code)
    ? (cause as unknown as PgProtocol.ErrorFields)
    : undefined

/** Identifiers are at most 63 bytes; a trigger may put anything there. */
const maxIdentifierLength = 63

const toFault = (fields: PgProtocol.ErrorFields): Store.DatabaseFault => {
  const named = Object.fromEntries(
    (["constraint", "table", "column"] as const).flatMap((what) => {
      const name = fields[what]
      return name === undefined ? [] : [[what, name.slice(0, maxIdentifierLength)]]
    })
  )
  return new Store.DatabaseFault({ sqlState: fields.code ?? "XX000", ...named })
}

const endsSession = (fields: PgProtocol.ErrorFields): boolean =>
  ["FATAL", "PANIC"].includes(fields.severityUnlocalized ?? fields.severity ?? "")

const isCodecError = (cause: unknown): boolean => cause instanceof PgTypes.CodecError

const isEncodeError = (cause: unknown): boolean => cause instanceof PgProtocol.EncodeError

/**
 * The same error without a word that may quote a value. Messages of the server
 * do, and those of the client that could not encode one.
 */
export const withoutValues = ({ reason }: SqlError): SqlError => {
  const fields = fieldsOf(reason.cause)
  if (fields !== undefined) {
    const cause = toFault(fields)
    const said = { cause, message: cause.message, operation: reason.operation }
    return new SqlError({
      reason: endsSession(fields) ? new ConnectionError(said) : new UnknownError(said)
    })
  }
  if (!isCodecError(reason.cause)) return new SqlError({ reason })
  const message = "a parameter could not be encoded"
  return new SqlError({
    reason: new UnknownError({
      cause: new PgTypes.CodecError({ message }),
      message,
      operation: reason.operation
    })
  })
}

export const sqlStateOf = ({ reason }: SqlError): string | undefined =>
  reason.cause instanceof Store.DatabaseFault ? reason.cause.sqlState : fieldsOf(reason.cause)?.code

/** Whether the same statement may be sent again at once. */
export const isPassing = (error: SqlError): boolean => passing.has(sqlStateOf(error) ?? "")

/** Whether a constraint of the table was broken. */
export const isBroken = (error: SqlError): boolean => broken.has(sqlStateOf(error) ?? "")

/** The cause that a `StoreError` carries: what was said first, and no value. */
const causeOf = (error: SqlError): unknown => withoutValues(error).reason.cause

const isRefused = (error: SqlError): boolean =>
  isCodecError(error.reason.cause) ||
  isEncodeError(error.reason.cause) ||
  blamesData.has((sqlStateOf(error) ?? "").slice(0, 2))

/**
 * What a failed statement means where no row can be at fault, or where it does
 * not matter which. What is not known to be the data's fault is the store's, and
 * passes.
 */
export const classify = (error: SqlError): Store.StoreError => {
  if (sqlStateOf(error) === queryCanceled) return Store.canceled(causeOf(error))
  return isRefused(error) ? Store.rejected(causeOf(error)) : Store.unavailable(causeOf(error))
}

/** What to make of a write that failed. */
export type Verdict =
  /** Nothing more is known from asking the server. */
  | { readonly _tag: "Decided"; readonly error: Store.StoreError }
  /** If the same statement without rows succeeds, then some row is at fault, and otherwise none. */
  | { readonly _tag: "AskTable"; readonly isLost: boolean }

/**
 * What a failed write means for the rows it carried.
 *
 * - Who got no connection has met an outage.
 * - A connection that was lost on the way may have been lost because of a row,
 *   or of the statement's size: not if the server is away.
 * - Of all other codes it is the table that decides, since a trigger may raise
 *   any of them.
 */
export const judge = (error: SqlError): Verdict => {
  const { cause, operation, _tag } = error.reason
  if (operation === "connect") return { _tag: "Decided", error: Store.unavailable(causeOf(error)) }
  // Too large for the protocol: smaller ones are not.
  if (isEncodeError(cause)) return { _tag: "Decided", error: Store.canceled(cause) }
  if (_tag === "ConnectionError") return { _tag: "AskTable", isLost: true }
  if (sqlStateOf(error) === queryCanceled || isRefused(error)) {
    return { _tag: "Decided", error: classify(error) }
  }
  return sqlStateOf(error) === undefined
    ? { _tag: "Decided", error: Store.unavailable(causeOf(error)) }
    : { _tag: "AskTable", isLost: false }
}

/** The error of a write after the table was asked. */
export const afterAsking = (error: SqlError, isLost: boolean): Store.StoreError =>
  isLost ? Store.canceled(causeOf(error)) : Store.rejected(causeOf(error))

/** The error of a write that no row is to blame for. */
export const unavailable = (error: SqlError): Store.StoreError => Store.unavailable(causeOf(error))
