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
   * takes the rest. It is decided when the table is made.
   */
  readonly partitioned?: boolean | undefined
}

// Rows are updated in place over and over; a tenth of each page left free keeps
// the new version on the same page from the start, so no index entry changes.
const createMetadata = (options: Options | undefined) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`
CREATE ${sql.literal(options?.unlogged ? "UNLOGGED" : "")} TABLE workspace_agent_metadata (
  workspace_agent_id uuid NOT NULL,
  key varchar(127) NOT NULL,
  value varchar(65535) NOT NULL,
  error varchar(65535) NOT NULL,
  collected_at timestamptz NOT NULL,
  PRIMARY KEY (workspace_agent_id, key)
) WITH (fillfactor = 90)`
  )

const createStats = Effect.fnUntraced(function* (options: Options | undefined) {
  const sql = yield* SqlClient.SqlClient
  // A unique key of a partitioned table has to hold what it is partitioned by.
  const [key, partitionBy] = options?.partitioned
    ? ["id, created_at", "PARTITION BY RANGE (created_at)"]
    : ["id", ""]
  yield* sql`
CREATE TABLE workspace_agent_stats (
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
  PRIMARY KEY (${sql.literal(key)})
) ${sql.literal(partitionBy)}`
  yield* sql`CREATE INDEX workspace_agent_stats_created_at ON workspace_agent_stats (created_at)`
  yield* sql`
CREATE INDEX workspace_agent_stats_agent_id ON workspace_agent_stats (agent_id, created_at DESC)`
  if (options?.partitioned) yield* Partitions.makeFirst(sql, "workspace_agent_stats")
})

const migrate = Migrator.make({})

/**
 * Brings the database to the schema of this version and returns the migrations
 * that were applied, none if it was there already. What has been applied is
 * recorded in `effect_metadata_batcher_migrations`. Processes that start at the
 * same time may all run it: one applies the migrations, the others wait for it.
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
  migrate({
    table: "effect_metadata_batcher_migrations",
    loader: Migrator.fromRecord({
      "0001_workspace_agent_metadata": Effect.asVoid(createMetadata(options)),
      "0002_workspace_agent_stats": createStats(options)
    })
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
