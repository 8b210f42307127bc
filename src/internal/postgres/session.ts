import * as PgClient from "@effect/sql-pg/PgClient"
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import type * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import type { Connection } from "effect/sql/SqlConnection"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import { readOnlyTransaction, sqlStateOf, withoutValues } from "./sqlError.ts"

/**
 * Runs a statement on a connection of the pool.
 *
 * It takes no part in a transaction of the fiber that runs it: a batcher built
 * inside one outlives it. And neither its errors nor its spans hold a value of a
 * row.
 */
export type Run = <Row extends object = never>(
  text: string,
  parameters: ReadonlyArray<PgTypes.Parameter | null>
) => Effect.Effect<Result<Row>, SqlError>

/** A result with rows of a known shape. */
export interface Result<Row> extends Omit<PgConnection.Result, "rows"> {
  readonly rows: ReadonlyArray<Row>
}

export const make = (sql: PgClient.PgClient): Run => {
  const acquire = Effect.mapBoth(sql.reserve, { onSuccess: withoutValuesOn, onFailure: notConnected })
  const { unsafe } = Statement.make(acquire, PgClient.makeCompiler(), spanAttributes(sql.config), undefined)
  return <Row extends object>(text: string, parameters: ReadonlyArray<PgTypes.Parameter | null>) =>
    unsafe(text, parameters).raw as Effect.Effect<Result<Row>, SqlError>
}

/** Whoever gets no connection has sent nothing, whatever the driver says. */
const notConnected = (error: SqlError): SqlError => {
  const { cause, message } = withoutValues(error).reason
  return new SqlError({ reason: new ConnectionError({ cause, message, operation: "connect" }) })
}

// The error has to be clean before the statement's span ends with it.
const withoutValuesOn = (connection: Connection): Connection =>
  Object.assign(Object.create(connection) as Connection, {
    executeRaw: (text: string, parameters: ReadonlyArray<unknown>) =>
      Effect.catch(connection.executeRaw(text, parameters), (error) =>
        sqlStateOf(error) === readOnlyTransaction
          ? leaveIfReadOnly(connection, withoutValues(error))
          : Effect.fail(withoutValues(error))
      )
  })

// After a failover a pooled session may stay on the server that has become
// read-only, and there is no other way to make the pool drop it. It ends itself,
// so that it fails at most once; the next one is connected anew.
const leaveIfReadOnly = (connection: Connection, error: SqlError): Effect.Effect<never, SqlError> =>
  Effect.matchEffect(connection.executeRaw(endIfReadOnly, []), {
    // The session is as it should be: a trigger has raised the code.
    onSuccess: () => Effect.fail(error),
    onFailure: () => Effect.fail(notConnected(error))
  })

const endIfReadOnly =
  "SELECT pg_terminate_backend(pg_backend_pid()) WHERE current_setting('transaction_read_only') = 'on'"

/** What the client's own statements say in their spans. */
const spanAttributes = (config: PgClient.PgClientConfig): ReadonlyArray<readonly [string, unknown]> => [
  ...Object.entries(config.spanAttributes ?? {}),
  ["db.system.name", "postgresql"],
  ["db.namespace", config.database ?? config.username ?? "postgres"],
  ["server.address", config.host ?? "localhost"],
  ["server.port", config.port ?? 5432]
]
