/**
 * The tables `PgStore` writes to.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Migrator from "effect/sql/Migrator"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { defaultMigrationsTable, quote, tablesOf } from "./internal/postgres/names.ts"
import * as Partitions from "./internal/postgres/partitions.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Make the metadata table `UNLOGGED`. Default `false`.
   *
   * Writes take 15 to 25 % less time and leave nothing in the write-ahead log,
   * which also means that replicas never see the table and that PostgreSQL
   * empties it after a crash. Agents report again within seconds, so for most
   * that is a good bargain. It is decided when the table is made.
   */
  readonly unlogged?: boolean | undefined
  /**
   * Partition the statistics table by `created_at`, a partition a day. Default
   * `false`.
   *
   * Old statistics then go by dropping partitions, which takes milliseconds
   * however many rows there are. `PgRetention` does that and makes the next ones:
   * without it they run out after three days, and rows go to a partition that
   * takes the rest. It is decided when the table is made: one that is there
   * without partitions is left as it is, with a warning.
   */
  readonly partitioned?: boolean | undefined
  /**
   * A schema of their own for the tables, whose names are then taken as they
   * are, dots included. It is made if it is not there. So several tenants live in
   * one database, each with migrations of its own.
   */
  readonly schema?: string | undefined
  /** Default `workspace_agent_metadata`. Without `schema`, a schema goes before it with a dot. */
  readonly metadataTable?: string | undefined
  /** Default `workspace_agent_stats`. Without `schema`, a schema goes before it with a dot. */
  readonly statsTable?: string | undefined
  /**
   * The table that records what has been applied. Default
   * `effect_metadata_batcher_migrations`, in `schema` if one is given. Tenants
   * that share a schema need one each.
   */
  readonly migrationsTable?: string | undefined
}

type Tables = ReturnType<typeof tablesOf>

const createMetadata = (tables: Tables, unlogged: boolean) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.unsafe(`
CREATE ${unlogged ? "UNLOGGED" : ""} TABLE ${tables.metadata} (
  workspace_agent_id uuid NOT NULL,
  key varchar(127) NOT NULL,
  value varchar(65535) NOT NULL,
  error varchar(65535) NOT NULL,
  collected_at timestamptz NOT NULL,
  PRIMARY KEY (workspace_agent_id, key)
) WITH (fillfactor = 90)`)
  )

const createStats = (tables: Tables, partitioned: boolean) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    // A unique key of a partitioned table has to hold what it is partitioned by.
    yield* sql.unsafe(`
CREATE TABLE ${tables.stats} (
  id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  user_id uuid NOT NULL,
  agent_id uuid NOT NULL,
  workspace_id uuid NOT NULL,
  template_id uuid NOT NULL,
  connections_by_proto jsonb NOT NULL DEFAULT '{}',
  connection_count bigint NOT NULL DEFAULT 0,
  rx_packets bigint NOT NULL DEFAULT 0,
  rx_bytes bigint NOT NULL DEFAULT 0,
  tx_packets bigint NOT NULL DEFAULT 0,
  tx_bytes bigint NOT NULL DEFAULT 0,
  session_count_vscode bigint NOT NULL DEFAULT 0,
  session_count_jetbrains bigint NOT NULL DEFAULT 0,
  session_count_reconnecting_pty bigint NOT NULL DEFAULT 0,
  session_count_ssh bigint NOT NULL DEFAULT 0,
  connection_median_latency_ms double precision NOT NULL DEFAULT -1,
  PRIMARY KEY (${partitioned ? "id, created_at" : "id"})
) ${partitioned ? "PARTITION BY RANGE (created_at)" : ""}`)
    yield* sql.unsafe(`CREATE INDEX ON ${tables.stats} (created_at)`)
    yield* sql.unsafe(`CREATE INDEX ON ${tables.stats} (agent_id, created_at DESC)`)
    if (partitioned) yield* Partitions.makeFirst(sql, tables.stats)
  })

// Rows are updated in place over and over. With half of each page left free, the
// new version finds room on the same page, so no index entry changes, and the
// old ones are cleared away in passing: measured, 20,000 rows settle at 3.1 MB
// instead of 7.7, and the server works 6 % less, 20 % in the first minutes.
// Existing pages keep what they hold: nothing is rewritten, and writers go on.
const leaveRoom = (tables: Tables) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.unsafe(`ALTER TABLE ${tables.metadata} SET (fillfactor = 50)`)
  )

const migrate = Migrator.make({})

/**
 * Brings the database to the schema of this version and returns the migrations
 * that were applied, none if it was there already. What has been applied is
 * recorded in `effect_metadata_batcher_migrations`. Processes that start at the
 * same time may all run it: one applies the migrations, the others wait for it.
 *
 * It runs in a transaction. Through a pooler that does not keep prepared
 * statements (PgBouncer before 1.21) it needs `prepare: false` on the `PgClient`.
 *
 * **Example** (Two tenants in one database)
 *
 * ```ts
 * import * as PgMigrations from "effect-metadata-batcher/PgMigrations"
 * import * as PgStore from "effect-metadata-batcher/PgStore"
 * import * as Layer from "effect/Layer"
 *
 * const tenant = (schema: string) =>
 *   PgStore.layer({ schema }).pipe(Layer.provide(PgMigrations.layer({ schema })))
 *
 * const AcmeStore = tenant("acme")
 * const GlobexStore = tenant("globex")
 * ```
 *
 * @category running
 * @since 0.1.0
 */
export const run = (
  options?: Options
): Effect.Effect<
  ReadonlyArray<readonly [id: number, name: string]>,
  Migrator.MigrationError | SqlError,
  SqlClient.SqlClient
> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const tables = tablesOf(options)
    const run = Effect.gen(function* () {
      // The migrator's own lock is on a table that may not be there yet.
      yield* sql`SELECT pg_advisory_xact_lock(hashtextextended(${tables.migrations}, 0))`
      if (options?.schema !== undefined) yield* enterSchema(sql, options.schema)
      return yield* migrate({
        table: options?.migrationsTable ?? defaultMigrationsTable,
        loader: Migrator.fromRecord({
          "0001_workspace_agent_metadata": Effect.asVoid(createMetadata(tables, options?.unlogged ?? false)),
          "0002_workspace_agent_stats": createStats(tables, options?.partitioned ?? false),
          "0003_workspace_agent_metadata_fillfactor": Effect.asVoid(leaveRoom(tables))
        })
      })
    })
    const applied = yield* sql.withTransaction(run)
    const madeStats = applied.some(([id]) => id === 2)
    if (options?.partitioned === true && !madeStats) yield* warnIfPlain(sql, tables.stats)
    return applied
  })

const warnIfPlain = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, table: string) {
  const found = yield* sql`SELECT FROM pg_class WHERE oid = to_regclass(${table}) AND relkind <> 'p'`
  if (found.length > 0) {
    yield* Effect.logWarning(
      `PgMigrations: ${table} is not partitioned and is not converted: only a new table is made in partitions`
    )
  }
})

// The migrator takes a dot in a name for the end of a schema's: it is shown the
// schema by the search path instead, for this transaction.
const enterSchema = Effect.fnUntraced(function* (sql: SqlClient.SqlClient, schema: string) {
  const found = yield* sql`SELECT FROM pg_catalog.pg_namespace WHERE nspname = ${schema}`
  if (found.length === 0) yield* sql.unsafe(`CREATE SCHEMA ${quote(schema)}`)
  yield* sql`SELECT set_config('search_path', ${quote(schema)}, true)`
})

/**
 * Runs the migrations while the application's layers are built.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<never, Migrator.MigrationError | SqlError, SqlClient.SqlClient> =>
  Layer.effectDiscard(run(options))
