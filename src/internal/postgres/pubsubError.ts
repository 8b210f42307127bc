import * as Predicate from "effect/Predicate"
import * as SqlError from "effect/sql/SqlError"
import { innermostMessage } from "../innermostMessage.ts"
import { invalid, type PubsubError, unavailable } from "../pubsub/error.ts"

// Classes of SQLSTATE in which the server speaks of itself or of the session,
// and never of what a statement carries.
const speaksOfItself: ReadonlySet<string> = new Set([
  "08", // connection exception
  "25", // invalid transaction state: a read-only server
  "28", // invalid authorization
  "3D", // invalid database name
  "53", // insufficient resources
  "55", // object not in the state it should be: the NOTIFY queue is full
  "57", // operator intervention
  "58" // system error
])

const dataException = "22"

/**
 * What a failed `LISTEN` or `NOTIFY` means. The cause is a new error that holds
 * no value: the server's message is kept only where it cannot quote one.
 */
export const toPubsubError = (error: unknown): PubsubError => {
  if (!SqlError.isSqlError(error)) return unavailable(new Error("not an error of PostgreSQL's client"))
  const { cause } = error.reason
  if (
    Predicate.hasProperty(cause, "code") &&
    Predicate.isString(cause.code) &&
    /^[0-9A-Z]{5}$/.test(cause.code)
  ) {
    const sqlState = cause.code
    const kind = sqlState.slice(0, 2)
    const said = speaksOfItself.has(kind) ? `: ${innermostMessage(cause)}` : ""
    const cleaned = new Error(`SQLSTATE ${sqlState}${said}`)
    return kind === dataException ? invalid(cleaned) : unavailable(cleaned)
  }
  return unavailable(
    new Error(error.reason._tag === "ConnectionError" ? innermostMessage(error) : error.reason._tag)
  )
}
