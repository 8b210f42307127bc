import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AgentId } from "../src/AgentId.ts"
import type { AgentStatsRow } from "../src/AgentStats.ts"
import * as PgStore from "../src/PgStore.ts"
import type * as Store from "../src/Store.ts"
import {
  batchOf,
  factsOf,
  makeAgentId,
  makeStats,
  StoreUnderTest,
  storeSuite
} from "./conformance/StoreSuite.ts"
import { captureLogs } from "./support/Fakes.ts"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const time = 1_700_000_000_000

const readStats = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<Omit<AgentStatsRow, "createdAt"> & { readonly createdAt: Date }>`
      SELECT id, created_at AS "createdAt", agent_id AS "agentId", user_id AS "userId",
        template_id AS "templateId", workspace_id AS "workspaceId",
        connections_by_proto AS "connectionsByProto", connection_count AS "connectionCount",
        rx_packets AS "rxPackets", rx_bytes AS "rxBytes", tx_packets AS "txPackets", tx_bytes AS "txBytes",
        session_count_vscode AS "sessionCountVSCode", session_count_jetbrains AS "sessionCountJetBrains",
        session_count_reconnecting_pty AS "sessionCountReconnectingPTY",
        session_count_ssh AS "sessionCountSSH", connection_median_latency_ms AS "connectionMedianLatencyMs"
      FROM workspace_agent_stats`,
    (rows) => rows.map((row) => ({ ...row, createdAt: DateTime.fromDateUnsafe(row.createdAt) }))
  )

storeSuite(
  "PostgreSQL",
  Layer.effect(
    StoreUnderTest,
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      return { store: yield* PgStore.make(), stats: Effect.orDie(readStats(sql)) }
    })
  ).pipe(Layer.provide(SharedPostgres.layer))
)

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("PgStore", (it) => {
  it.effect("keeps the microseconds of a time", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const store = yield* PgStore.make()
      const agentId = makeAgentId()
      yield* store.batchUpdateMetadata(batchOf([[agentId, "cpu", "", time + 0.123]]))
      const rows = yield* sql`SELECT to_char(collected_at, 'SS.US') AS seconds
        FROM workspace_agent_metadata WHERE workspace_agent_id = ${agentId}`
      assert.deepStrictEqual(rows, [{ seconds: "20.000123" }])
    })
  )

  it.effect("reads times that a Date cannot hold as the nearest that it can", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const store = yield* PgStore.make()
      const agentId = makeAgentId()
      yield* sql`INSERT INTO workspace_agent_metadata VALUES
        (${agentId}, 'future', '', '', 'infinity'), (${agentId}, 'past', '', '', '-infinity')`
      assert.deepStrictEqual(yield* factsOf(store, agentId), {
        future: ["", "", 8_640_000_000_000_000],
        past: ["", "", -210_866_803_200_000]
      })
    })
  )

  it.effect("prepares each statement once, whatever the size of the batch", () =>
    Effect.gen(function* () {
      const sql = yield* Postgres.makeClient({ maxConnections: 1 })
      const store = yield* Effect.provideService(PgStore.make(), PgClient.PgClient, sql)
      for (const size of [1, 2, 500]) {
        const agentIds = Array.from({ length: size }, makeAgentId)
        yield* store.batchUpdateMetadata(batchOf(agentIds.map((agentId) => [agentId, "cpu", "", time])))
        yield* store.batchInsertStats(agentIds.map((agentId) => makeStats({ agentId })))
        yield* store.metadataOf(agentIds)
      }
      const statements = yield* sql`SELECT (generic_plans + custom_plans)::int AS executions
        FROM pg_prepared_statements WHERE statement LIKE '%workspace_agent%'`.unprepared
      assert.deepStrictEqual(statements, [{ executions: 3 }, { executions: 3 }, { executions: 3 }])
    })
  )

  it.effect("keeps the newer fact of a batch that names a key twice", () =>
    Effect.gen(function* () {
      const store = yield* PgStore.make()
      const agentId = makeAgentId()
      yield* store.batchUpdateMetadata(
        batchOf([
          [agentId, "cpu", "newer", time + 1],
          [agentId, "cpu", "older", time]
        ])
      )
      assert.deepStrictEqual(yield* factsOf(store, agentId), { cpu: ["newer", "", time + 1] })
    })
  )

  it.effect("works through a client that renames columns", () =>
    Effect.gen(function* () {
      const sql = yield* Postgres.makeClient({ transformResultNames: (name) => name.toUpperCase() })
      const store = yield* Effect.provideService(PgStore.make(), PgClient.PgClient, sql)
      const agentId = makeAgentId()
      yield* store.batchUpdateMetadata(batchOf([[agentId, "cpu", "7 %", time]]))
      assert.deepStrictEqual(yield* factsOf(store, agentId), { cpu: ["7 %", "", time] })
    })
  )

  it.effect("onlyExisting updates the rows there are, newest-wins, and passes over the others", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      yield* sql`CREATE TABLE workspace_agents (id uuid PRIMARY KEY)`
      yield* sql`CREATE UNLOGGED TABLE coder_metadata (
        workspace_agent_id uuid NOT NULL,
        display_name varchar(127) NOT NULL,
        key varchar(127) NOT NULL,
        script varchar(65535) NOT NULL,
        value varchar(65535) DEFAULT '' NOT NULL,
        error varchar(65535) DEFAULT '' NOT NULL,
        timeout bigint NOT NULL,
        "interval" bigint NOT NULL,
        collected_at timestamptz DEFAULT '0001-01-01 00:00:00+00' NOT NULL,
        PRIMARY KEY (workspace_agent_id, key),
        FOREIGN KEY (workspace_agent_id) REFERENCES workspace_agents (id) ON DELETE CASCADE
      )`
      const [agentId, missing] = [makeAgentId(), makeAgentId()]
      const insert = (id: AgentId, key: string) =>
        sql`INSERT INTO coder_metadata (workspace_agent_id, display_name, key, script, timeout, "interval")
          VALUES (${id}, 'CPU', ${key}, 'cat /proc/loadavg', 3, 10)`
      yield* sql`INSERT INTO workspace_agents VALUES (${agentId})`
      yield* insert(agentId, "cpu")
      yield* insert(agentId, "disk")

      const store = yield* PgStore.make({ metadataTable: "coder_metadata", onlyExisting: true })
      yield* store.batchUpdateMetadata(
        batchOf([
          [agentId, "cpu", "7 %", time],
          [agentId, "disk", "80 %", time],
          [agentId, "gone", "", time],
          [missing, "cpu", "", time]
        ])
      )
      yield* store.batchUpdateMetadata(
        batchOf([
          [agentId, "cpu", "older", time - 1],
          [agentId, "disk", "same time", time, "full"]
        ])
      )
      assert.deepStrictEqual(yield* factsOf(store, agentId), {
        cpu: ["7 %", "", time],
        disk: ["same time", "full", time]
      })
      assert.deepStrictEqual(yield* factsOf(store, missing), {})
    })
  )

  it.effect("tells rows that do not exist from rows that are newer", () =>
    Effect.gen(function* () {
      const upsert = yield* PgStore.make()
      const update = yield* PgStore.make({ onlyExisting: true })
      const agentId = makeAgentId()
      yield* upsert.batchUpdateMetadata(
        batchOf([
          [agentId, "held", "", time],
          [agentId, "newer", "", time + 5]
        ])
      )
      const result = yield* update.batchUpdateMetadata(
        batchOf([
          [agentId, "newer", "1", time + 1],
          [agentId, "held", "1", time + 1],
          [agentId, "missing", "1", time + 1],
          [agentId, "nul\0", "1", time + 1],
          [agentId, "missing too", "1", time + 1]
        ])
      )
      assert.deepStrictEqual(result, {
        changed: 1,
        superseded: [0],
        missing: [2, 4],
        refused: [{ position: 3, why: "the key contains a NUL character" }]
      })
    })
  )

  it.effect("counts each of two keys once that become one on the way", () =>
    Effect.gen(function* () {
      const store = yield* PgStore.make()
      const agentId = makeAgentId()
      const facts = ["\ud800", "\udbff", "cpu"].map((key, n) => [agentId, key, `${n}`, time + n] as const)
      const result = yield* store.batchUpdateMetadata(batchOf(facts))
      assert.deepStrictEqual([result.changed, result.superseded], [2, [0]])
    })
  )

  it.effect.each([{ onlyExisting: false }, { onlyExisting: true }])(
    "lets a row that is dated too far ahead give way: %o",
    (options) =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const upsert = yield* PgStore.make()
        const guarded = yield* PgStore.make(options)
        const trusting = yield* PgStore.make({ ...options, maxAhead: Number.POSITIVE_INFINITY })
        const agentId = makeAgentId()
        const now = Date.now()
        yield* upsert.batchUpdateMetadata(
          batchOf([
            [agentId, "year", "ahead", now + 365 * 86_400_000],
            [agentId, "second", "ahead", now + 30_000]
          ])
        )
        yield* sql`UPDATE workspace_agent_metadata SET collected_at = 'infinity'
          WHERE workspace_agent_id = ${agentId} AND key = 'year'`
        const write = (store: Store.Store["Service"], value: string) =>
          store.batchUpdateMetadata(
            batchOf([
              [agentId, "year", value, now],
              [agentId, "second", value, now]
            ])
          )
        assert.deepStrictEqual((yield* write(trusting, "now")).superseded, [0, 1])
        assert.deepStrictEqual((yield* write(guarded, "now")).superseded, [1])
        const facts = yield* factsOf(upsert, agentId)
        assert.deepStrictEqual([facts["year"]?.[0], facts["second"]?.[0]], ["now", "ahead"])
      })
  )

  it.effect("writes outside of the transaction that it was built in, or is called from", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const agentId = makeAgentId()
      const rollback = new Error("rolled back")
      const written = Deferred.makeUnsafe<Store.Store["Service"]>()
      const failed = yield* Effect.flip(
        sql.withTransaction(
          Effect.gen(function* () {
            const store = yield* PgStore.make()
            yield* store.batchUpdateMetadata(batchOf([[agentId, "cpu", "1", time]]))
            yield* Deferred.succeed(written, store)
            return yield* Effect.fail(rollback)
          })
        )
      )
      assert.strictEqual(failed, rollback)
      const store = yield* Deferred.await(written)
      yield* store.batchUpdateMetadata(batchOf([[agentId, "disk", "2", time]]))
      assert.deepStrictEqual(Object.keys(yield* factsOf(store, agentId)).sort(), ["cpu", "disk"])
    })
  )

  it.effect("retries a deadlock with the application's own transaction, without a word", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const store = yield* PgStore.make()
      const agentId = makeAgentId()
      const batch = batchOf(["a", "b"].map((key) => [agentId, key, "1", time] as const))
      yield* store.batchUpdateMetadata(batch)
      // A deadlock as PostgreSQL reports it, at the first attempt only.
      yield* sql`CREATE SEQUENCE attempts`
      yield* sql`CREATE TABLE deadlocked (LIKE workspace_agent_metadata INCLUDING ALL)`
      yield* sql.unsafe(`CREATE FUNCTION deadlock() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF nextval('attempts') = 1 THEN RAISE EXCEPTION USING ERRCODE = '40P01'; END IF; RETURN NEW; END $$`)
      yield* sql`CREATE TRIGGER deadlocks BEFORE INSERT ON deadlocked FOR EACH ROW EXECUTE FUNCTION deadlock()`
      const [lines, logging] = captureLogs()
      const deadlocked = yield* PgStore.make({ metadataTable: "deadlocked" })
      const result = yield* Effect.provide(deadlocked.batchUpdateMetadata(batch), logging)
      assert.deepStrictEqual([result.changed, lines.filter(({ level }) => level !== "Debug")], [2, []])
    })
  )

  it.effect("onlyExisting keeps the newest of each key when many write the same keys at once", () =>
    Effect.gen(function* () {
      const upsert = yield* PgStore.make()
      const update = yield* PgStore.make({ onlyExisting: true })
      const agentId = makeAgentId()
      const keys = Array.from({ length: 50 }, (_, key) => `key ${key}`)
      yield* upsert.batchUpdateMetadata(batchOf(keys.map((key) => [agentId, key, "", 0])))
      const newest = new Map<string, number>()
      const batches = Array.from({ length: 80 }, () =>
        batchOf(
          keys
            .map((key) => {
              const at = time + Math.floor(Math.random() * 1_000_000)
              newest.set(key, Math.max(newest.get(key) ?? 0, at))
              return [agentId, key, `${at}`, at] as const
            })
            .sort(() => Math.random() - 0.5)
        )
      )
      yield* Effect.forEach(batches, update.batchUpdateMetadata, { concurrency: 8, discard: true })
      assert.deepStrictEqual(
        yield* factsOf(update, agentId),
        Object.fromEntries(Array.from(newest, ([key, at]) => [key, [`${at}`, "", at]]))
      )
    })
  )
})
