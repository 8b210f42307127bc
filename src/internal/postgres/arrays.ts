import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Result from "effect/Result"

/** An array parameter. It fails only for an element type without an array type, and those used here have one. */
export const arrayOf = (values: ReadonlyArray<unknown>, oid: number): PgTypes.Parameter =>
  Result.getOrThrow(PgTypes.array(values, oid))
