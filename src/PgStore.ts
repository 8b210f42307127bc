/**
 * The `Store` in PostgreSQL, through `@effect/sql-pg`.
 *
 * A batch is one statement whose text never changes, so that a connection
 * prepares it once, with one array parameter per column. Only where it fails, or
 * changes fewer rows than it was given, is the server asked which rows that are.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Inspect from "./internal/postgres/inspect.ts"
import * as Metadata from "./internal/postgres/metadata.ts"
import { tablesOf } from "./internal/postgres/names.ts"
import * as Read from "./internal/postgres/read.ts"
import * as Session from "./internal/postgres/session.ts"
import * as Stats from "./internal/postgres/stats.ts"
import * as Store from "./Store.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Update only rows that exist, and pass over the others. Default `false`.
   *
   * For a database where something else creates the rows, that of Coder 2.31 for
   * one, whose table has further columns without defaults. Takes 37 % longer than the
   * upsert (500 rows, measured in one run), because it locks the rows, in key
   * order, before it updates them.
   */
  readonly onlyExisting?: boolean | undefined
  /** A schema of their own for the tables, whose names are then taken as they are, dots included. */
  readonly schema?: string | undefined
  /** Default `workspace_agent_metadata`. Without `schema`, a schema goes before it with a dot. */
  readonly metadataTable?: string | undefined
  /** Default `workspace_agent_stats`. Without `schema`, a schema goes before it with a dot. */
  readonly statsTable?: string | undefined
  /** What `PgMigrations` was told, if anything. Default `effect_metadata_batcher_migrations`. */
  readonly migrationsTable?: string | undefined
  /**
   * How far a row in the table may be dated ahead of the server's clock before
   * it gives way to any report. Default 1 minute; `Infinity` turns it off.
   */
  readonly maxAhead?: Duration.Input | undefined
  /**
   * How long a statement waits for a row that another transaction has locked.
   * Default 1 second; 0 waits for ever. After that the other rows are written,
   * and the locked ones are answered as refused.
   */
  readonly lockTimeout?: Duration.Input | undefined
}

/**
 * Makes a `Store` of the `PgClient` in context.
 *
 * **Details**
 *
 * Its statements run on connections of the pool, each by itself: they take no
 * part in a transaction of the caller, which has to leave a connection for them,
 * and none of them opens one. So a pooler
 * may lend its connections statement by statement. One that does not keep
 * prepared statements, as PgBouncer before 1.21, costs a second round trip now
 * and then; `prepare: false` on the `PgClient` spares it.
 *
 * What it fails with, and its spans, hold no value of a row: of what PostgreSQL
 * says only the SQLSTATE and the names of constraint, table and column are kept.
 *
 * If the server is older than PostgreSQL 14, lacks a table, or has tables of a
 * newer version of this library, a warning says so: at once, or when the server
 * can be reached first.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<Store.Store["Service"], never, PgClient.PgClient> {
  const sql = yield* PgClient.PgClient
  const tables = tablesOf(options)
  const run = yield* Inspect.make(Session.make(sql), tables)
  const lockTimeout = Duration.toMillis(Duration.fromInputUnsafe(options?.lockTimeout ?? "1 second"))
  return Store.Store.of({
    batchUpdateMetadata: Metadata.make(run, {
      table: tables.metadata,
      onlyExisting: options?.onlyExisting ?? false,
      maxAhead: Duration.toMillis(Duration.fromInputUnsafe(options?.maxAhead ?? "1 minute")),
      lockTimeout: Number.isFinite(lockTimeout) ? lockTimeout : 0
    }),
    batchInsertStats: Stats.make(run, {
      table: tables.stats,
      lockTimeout: Number.isFinite(lockTimeout) ? lockTimeout : 0
    }),
    ...Read.make(run, tables.metadata)
  })
})

/**
 * Provides the `Store` in the database of the `PgClient` in context. The tables
 * are those that `PgMigrations` makes.
 *
 * **Example** (Writing to PostgreSQL)
 *
 * ```ts
 * import * as PgStore from "effect-metadata-batcher/PgStore"
 * import * as PgClient from "@effect/sql-pg/PgClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * const StoreLive = PgStore.layer().pipe(
 *   Layer.provide(PgClient.layer({ url: Redacted.make("postgres://app@localhost/app") }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Store.Store, never, PgClient.PgClient> =>
  Layer.effect(Store.Store, make(options))
