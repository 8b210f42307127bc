import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { tablesOf } from "./names.ts"
import type { Run } from "./session.ts"
import { sqlStateOf } from "./sqlError.ts"

/** The newest migration this version knows. */
export const newestMigration = 3

const oldestServer = 140_000

const look = `
SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
  to_regclass($1) IS NULL AS "lacksMetadata", to_regclass($2) IS NULL AS "lacksStats",
  to_regclass($3) IS NOT NULL AS "isMigrated"`

interface Look {
  readonly number: number
  readonly version: string
  readonly lacksMetadata: boolean
  readonly lacksStats: boolean
  readonly isMigrated: boolean
}

/** How long the layer waits for a server that does not answer. */
const patience = "2 seconds"

/**
 * Says in one line what of the database is not as it should be: an older server,
 * a missing table, the schema of a newer version. The effect made does that at
 * once if the server can be reached, and `whenReached` makes up for it as soon
 * as any other effect has reached it.
 */
export const make = Effect.fnUntraced(function* (run: Run, tables: ReturnType<typeof tablesOf>) {
  let isDone = false

  const newestOf = Effect.map(
    run<{ readonly newest: number | null }>(
      `SELECT max(migration_id) AS newest FROM ${tables.migrations}`,
      []
    ),
    ({ rows: [row] }) => row?.newest ?? 0
  )

  const problemsOf = Effect.fnUntraced(function* (found: Look) {
    const missing = [
      ...(found.lacksMetadata ? [tables.metadata] : []),
      ...(found.lacksStats ? [tables.stats] : [])
    ]
    // Whoever writes to the tables need not be allowed to read this one.
    const newest = found.isMigrated ? yield* Effect.orElseSucceed(newestOf, () => 0) : 0
    return [
      ...(found.number < oldestServer
        ? [`PostgreSQL 14 or newer is needed, the server is ${found.version}`]
        : []),
      ...(missing.length > 0 ? [`no such table: ${missing.join(", ")} (see PgMigrations)`] : []),
      ...(newest > newestMigration
        ? [`the tables were made by a newer version, migration ${newest} instead of ${newestMigration}`]
        : [])
    ]
  })

  const notYet = Effect.sync(() => {
    isDone = false
  })
  const inspect = Effect.suspend(() => {
    if (isDone) return Effect.void
    isDone = true
    return run<Look>(look, [
      PgTypes.text(tables.metadata),
      PgTypes.text(tables.stats),
      PgTypes.text(tables.migrations)
    ]).pipe(
      Effect.flatMap(({ rows: [found] }) => (found === undefined ? Effect.succeed([]) : problemsOf(found))),
      Effect.timeout(patience),
      Effect.flatMap((problems) =>
        problems.length === 0
          ? Effect.void
          : Effect.logWarning(`PgStore: the database is not as it should be: ${problems.join("; ")}`)
      ),
      Effect.catch(() => notYet),
      Effect.onInterrupt(() => notYet)
    )
  })

  yield* inspect

  const reached = (error: SqlError): boolean => sqlStateOf(error) !== undefined

  const whenReached: Run = (text, parameters) =>
    isDone
      ? run(text, parameters)
      : run(text, parameters).pipe(
          Effect.tap(() => inspect),
          Effect.tapError((error) => (reached(error) ? inspect : Effect.void))
        )
  return whenReached
})
