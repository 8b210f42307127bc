/**
 * Which rows of a batch PostgreSQL refuses, and that all the others are written,
 * for both tables, against a real server.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { AgentId } from "../src/AgentId.ts"
import type { MetadataBatch } from "../src/Metadata.ts"
import * as PgStore from "../src/PgStore.ts"
import type * as Store from "../src/Store.ts"
import { batchOf, factsOf, makeAgentId, makeStats } from "./conformance/StoreSuite.ts"
import * as Postgres from "./support/Postgres.ts"

const time = 1_700_000_000_000

/** A table of its own, like one of ours, with more to it. */
const makeTable = Effect.fnUntraced(function* (more: string, like = "workspace_agent_metadata") {
  const sql = yield* PgClient.PgClient
  const name = `t${crypto.randomUUID().replaceAll("-", "").slice(0, 12)}`
  yield* sql.unsafe(`CREATE TABLE ${name} (LIKE ${like} INCLUDING ALL, ${more})`)
  return name
})

/** A table whose trigger does this to a row with the value "bad". */
const makeTriggered = Effect.fnUntraced(function* (action: string) {
  const sql = yield* PgClient.PgClient
  const name = yield* makeTable("CHECK (true)")
  yield* sql.unsafe(`CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.value = 'bad' THEN ${action} END IF; RETURN NEW; END $$`)
  yield* sql.unsafe(`CREATE TRIGGER refuses BEFORE INSERT OR UPDATE ON ${name}
    FOR EACH ROW EXECUTE FUNCTION ${name}()`)
  return name
})

/** 100 keys of one agent, in no order; those of the given numbers are bad. */
const batchWith = (agentId: AgentId, bad: ReadonlyArray<number>, at = time): MetadataBatch =>
  batchOf(
    Array.from({ length: 100 }, (_, i) => {
      const key = (i * 37) % 100
      return [agentId, `key ${key}`, bad.includes(key) ? "bad" : `good ${at}`, at] as const
    })
  )

const keysRefused = (batch: MetadataBatch, { refused }: Store.WriteResult) =>
  refused.map(({ position }) => Number(batch.keys[position]?.slice(4))).sort((a, b) => a - b)

/** The keys that were written at this time. */
const keysWritten = (store: Store.Store["Service"], agentId: AgentId, at: number) =>
  Effect.map(factsOf(store, agentId), (facts) =>
    Object.keys(facts)
      .filter((key) => facts[key]?.[2] === at)
      .map((key) => Number(key.slice(4)))
      .sort((a, b) => a - b)
  )

const allBut = (bad: ReadonlyArray<number>) =>
  Array.from({ length: 100 }, (_, key) => key).filter((key) => !bad.includes(key))

/** How a write ends: what it answers, or why not. */
const tagOf = (write: Effect.Effect<Store.WriteResult, Store.StoreError>) =>
  Effect.map(Effect.exit(write), (exit) =>
    Exit.isSuccess(exit) ? "written" : Effect.runSync(Effect.flip(exit)).reason._tag
  )

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "Refused rows on PostgreSQL",
  (it) => {
    it.effect.each([{ onlyExisting: false }, { onlyExisting: true }])(
      "are named, and the others are written: %o",
      (options) =>
        Effect.gen(function* () {
          const metadataTable = yield* makeTable("CONSTRAINT no_bad CHECK (value <> 'bad')")
          const store = yield* PgStore.make({ metadataTable, ...options })
          const agentId = makeAgentId()
          const upsert = yield* PgStore.make({ metadataTable })
          if (options.onlyExisting) yield* upsert.batchUpdateMetadata(batchWith(agentId, [], 0))
          for (const [round, bad] of [[7], [0, 1, 2, 50, 99], [31, 32, 33], [99], [0]].entries()) {
            const at = time + round
            const batch = batchWith(agentId, bad, at)
            const result = yield* store.batchUpdateMetadata(batch)
            assert.deepStrictEqual(keysRefused(batch, result), bad)
            assert.deepStrictEqual(result.changed, 100 - bad.length)
            assert.deepStrictEqual(yield* keysWritten(store, agentId, at), allBut(bad))
            for (const { why } of result.refused) {
              assert.strictEqual(why, `SQLSTATE 23514, constraint "no_bad", table "${metadataTable}"`)
            }
          }
          const clean = yield* store.batchUpdateMetadata(batchWith(agentId, [], time + 10))
          assert.deepStrictEqual([clean.changed, clean.refused], [100, []])
        })
    )

    it.effect("are named with why: too long, parent missing, a constraint of odd name", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const parent = makeAgentId()
        yield* sql`CREATE TABLE agents (id uuid PRIMARY KEY)`
        yield* sql`INSERT INTO agents VALUES (${parent})`
        const metadataTable = yield* makeTable(
          `CONSTRAINT "it's $odd$ ""quoted""" CHECK (key <> 'odd' AND (error = '' OR length(value) < 3)),
         CONSTRAINT has_agent FOREIGN KEY (workspace_agent_id) REFERENCES agents (id)`
        )
        yield* sql.unsafe(`ALTER TABLE ${metadataTable} ALTER value TYPE varchar(5)`)
        const store = yield* PgStore.make({ metadataTable })
        const orphan = makeAgentId()
        const write = (at: number) =>
          store.batchUpdateMetadata(
            batchOf([
              [parent, "fine", "12345", at],
              [parent, "spaces", "12345    ", at],
              [parent, "long", "123456", at],
              [orphan, "fine", "", at],
              [parent, "odd", "", at],
              [parent, "😀", "😀😀😀😀😀", at]
            ])
          )
        // The first statement fails, then the server is asked: once for each kind of error.
        for (const at of [time, time + 1]) {
          const result = yield* write(at)
          assert.deepStrictEqual(result, {
            changed: 3,
            superseded: [],
            missing: [],
            refused: [
              { position: 2, why: `SQLSTATE 22001, table "${metadataTable}", column "value"` },
              { position: 3, why: `SQLSTATE 23503, constraint "has_agent", table "${metadataTable}"` },
              {
                position: 4,
                why: `SQLSTATE 23514, constraint ${JSON.stringify('it\'s $odd$ "quoted"')}, table "${metadataTable}"`
              }
            ].sort((a, b) => a.position - b.position)
          })
        }
        // The parent's row comes late: nobody has to restart anything.
        yield* sql`INSERT INTO agents VALUES (${orphan})`
        assert.deepStrictEqual(
          (yield* write(time + 2)).refused.map(({ position }) => position),
          [2, 4]
        )
      })
    )

    it.effect("does not count a row that is there already, though its parent is missing", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE late_agents (id uuid PRIMARY KEY)`
        const metadataTable = yield* makeTable("CHECK (true)")
        const store = yield* PgStore.make({ metadataTable })
        const [held, orphan] = [makeAgentId(), makeAgentId()]
        yield* store.batchUpdateMetadata(batchOf([[held, "cpu", "", time]]))
        yield* sql.unsafe(`ALTER TABLE ${metadataTable}
        ADD FOREIGN KEY (workspace_agent_id) REFERENCES late_agents (id) NOT VALID`)
        const result = yield* store.batchUpdateMetadata(
          batchOf([
            [held, "cpu", "", time + 1],
            [orphan, "cpu", "", time + 1]
          ])
        )
        assert.deepStrictEqual([result.changed, result.refused.map(({ position }) => position)], [1, [1]])
      })
    )

    it.effect("are judged by what the table is now, not by what it was", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const metadataTable = yield* makeTable("CONSTRAINT no_bad CHECK (value <> 'bad')")
        const store = yield* PgStore.make({ metadataTable })
        const agentId = makeAgentId()
        const refusedOf = Effect.fnUntraced(function* (at: number) {
          const batch = batchWith(agentId, [1, 2], time + at)
          return keysRefused(batch, yield* store.batchUpdateMetadata(batch))
        })
        assert.deepStrictEqual(yield* refusedOf(0), [1, 2])
        yield* sql.unsafe(`ALTER TABLE ${metadataTable} DROP CONSTRAINT no_bad`)
        assert.deepStrictEqual(yield* refusedOf(1), [])
        yield* sql.unsafe(
          `ALTER TABLE ${metadataTable} ADD CONSTRAINT no_key_5 CHECK (key <> 'key 5') NOT VALID`
        )
        assert.deepStrictEqual(yield* refusedOf(2), [5])
        yield* sql.unsafe(
          `ALTER TABLE ${metadataTable} ADD CONSTRAINT no_bad CHECK (value <> 'bad') NOT VALID`
        )
        assert.deepStrictEqual(yield* refusedOf(3), [1, 2, 5])
      })
    )

    it.effect("a constraint that every row breaks is Rejected, and nobody is named", () =>
      Effect.gen(function* () {
        const metadataTable = yield* makeTable("CONSTRAINT nothing CHECK (value = 'other')")
        const store = yield* PgStore.make({ metadataTable })
        const write = store.batchUpdateMetadata(batchWith(makeAgentId(), []))
        for (let round = 0; round < 3; round++) assert.strictEqual(yield* tagOf(write), "Rejected")
      })
    )

    it.effect("a column that is not ours, or a constraint on one, is Rejected", () =>
      Effect.gen(function* () {
        const required = yield* makeTable("required int NOT NULL")
        const checked = yield* makeTable("extra int DEFAULT 0, CHECK (extra > 0 OR value <> 'bad')")
        const agentId = makeAgentId()
        for (const [metadataTable, bad] of [
          [required, []],
          [checked, [3]]
        ] as const) {
          const store = yield* PgStore.make({ metadataTable })
          assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(batchWith(agentId, bad))), "Rejected")
        }
      })
    )

    it.effect.each([
      "RAISE EXCEPTION 'refused';",
      "RAISE EXCEPTION USING ERRCODE = 'XX001';",
      "RAISE EXCEPTION USING ERRCODE = '53100';",
      "RAISE EXCEPTION USING ERRCODE = '25006';",
      "RAISE EXCEPTION USING ERRCODE = '40001';",
      "RAISE EXCEPTION USING ERRCODE = '26000';",
      "PERFORM FROM no_such_table;",
      "PERFORM 1 / 0;"
    ])("a row that makes a trigger %s is the row's fault: Rejected, alone and with others", (action) =>
      Effect.gen(function* () {
        const store = yield* PgStore.make({ metadataTable: yield* makeTriggered(action) })
        const agentId = makeAgentId()
        assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(batchWith(agentId, [5]))), "Rejected")
        assert.strictEqual(
          yield* tagOf(store.batchUpdateMetadata(batchOf([[agentId, "key 5", "bad", time]]))),
          "Rejected"
        )
        assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(batchWith(agentId, []))), "written")
      })
    )

    it.effect("a row that the connection does not survive is Canceled, alone and with others", () =>
      Effect.gen(function* () {
        const store = yield* PgStore.make({
          metadataTable: yield* makeTriggered("PERFORM pg_terminate_backend(pg_backend_pid());")
        })
        const agentId = makeAgentId()
        assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(batchWith(agentId, [5]))), "Canceled")
        assert.strictEqual(
          yield* tagOf(store.batchUpdateMetadata(batchOf([[agentId, "key 5", "bad", time]]))),
          "Canceled"
        )
        assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(batchWith(agentId, []))), "written")
      })
    )

    it.effect(
      "a row that row-level security refuses is the row's fault, and a grant that is missing nobody's",
      () =>
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const metadataTable = yield* makeTable("CHECK (true)")
          yield* sql.unsafe(`ALTER TABLE ${metadataTable} ENABLE ROW LEVEL SECURITY`)
          yield* sql.unsafe(`CREATE POLICY good ON ${metadataTable} USING (true) WITH CHECK (value <> 'bad')`)
          yield* sql`CREATE ROLE secured LOGIN`
          yield* sql.unsafe(`GRANT ALL ON ${metadataTable} TO secured`)
          const client = yield* Postgres.makeClient({ username: "secured" })
          const store = yield* Effect.provideService(
            PgStore.make({ metadataTable }),
            PgClient.PgClient,
            client
          )
          const write = (bad: ReadonlyArray<number>) =>
            tagOf(store.batchUpdateMetadata(batchWith(makeAgentId(), bad)))
          assert.strictEqual(yield* write([7]), "Rejected")
          assert.strictEqual(yield* write([]), "written")
          yield* sql.unsafe(`REVOKE INSERT ON ${metadataTable} FROM secured`)
          assert.strictEqual(yield* write([]), "Unavailable")
        })
    )

    it.effect("a constraint that is checked at the end of the transaction names its rows as well", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE deferred_agents (id uuid PRIMARY KEY)`
        const metadataTable = yield* makeTable(
          "FOREIGN KEY (workspace_agent_id) REFERENCES deferred_agents DEFERRABLE INITIALLY DEFERRED"
        )
        const store = yield* PgStore.make({ metadataTable })
        const [known, unknown] = [makeAgentId(), makeAgentId()]
        yield* sql`INSERT INTO deferred_agents VALUES (${known})`
        const result = yield* store.batchUpdateMetadata(
          batchOf([
            [unknown, "of no agent", "", time],
            [known, "cpu", "", time]
          ])
        )
        assert.deepStrictEqual([result.changed, result.refused.map(({ position }) => position)], [1, [0]])
      })
    )

    it.effect("a parent that may not be read is not asked: Rejected", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE hidden_agents (id uuid PRIMARY KEY)`
        const known = makeAgentId()
        yield* sql`INSERT INTO hidden_agents VALUES (${known})`
        const metadataTable = yield* makeTable("FOREIGN KEY (workspace_agent_id) REFERENCES hidden_agents")
        yield* sql`CREATE ROLE restricted LOGIN`
        yield* sql.unsafe(`GRANT ALL ON ${metadataTable} TO restricted`)
        const client = yield* Postgres.makeClient({ username: "restricted" })
        const store = yield* Effect.provideService(PgStore.make({ metadataTable }), PgClient.PgClient, client)
        const write = (...agentIds: ReadonlyArray<AgentId>) =>
          tagOf(store.batchUpdateMetadata(batchOf(agentIds.map((agentId) => [agentId, "cpu", "", time]))))
        assert.strictEqual(yield* write(known, makeAgentId()), "Rejected")
        assert.strictEqual(yield* write(known), "written")
      })
    )

    it.effect("are named to each of several writers, and newer facts are never replaced on the way", () =>
      Effect.gen(function* () {
        const metadataTable = yield* makeTable("CHECK (value <> 'bad')")
        const client = yield* Postgres.makeClient({ maxConnections: 4 })
        const store = yield* Effect.provideService(PgStore.make({ metadataTable }), PgClient.PgClient, client)
        const agentId = makeAgentId()
        yield* Effect.forEach(
          Array.from({ length: 40 }, (_, round) => round),
          Effect.fnUntraced(function* (round) {
            const batch = batchWith(agentId, [round], time + round)
            const result = yield* store.batchUpdateMetadata(batch)
            assert.deepStrictEqual(keysRefused(batch, result), [round])
            assert.strictEqual(result.changed + result.superseded.length, 99)
          }),
          { concurrency: 8 }
        )
        const facts = yield* factsOf(store, agentId)
        for (let key = 0; key < 100; key++) {
          assert.strictEqual(facts[`key ${key}`]?.[2], key === 39 ? time + 38 : time + 39)
        }
      })
    )

    it.effect.each([false, true])(
      "of two facts that are of one row the newer is kept; swapped: %s",
      (swapped) =>
        Effect.gen(function* () {
          const upsert = yield* PgStore.make()
          const store = yield* PgStore.make({ onlyExisting: true })
          const agentId = makeAgentId()
          yield* upsert.batchUpdateMetadata(batchOf([[agentId, "\ufffd", "first", time]]))
          // PostgreSQL keeps either lone surrogate as U+FFFD.
          const older = [agentId, "\ud800", "older", time + 1] as const
          const newer = [agentId, "\ud801", "newer", time + 2] as const
          const result = yield* store.batchUpdateMetadata(batchOf(swapped ? [newer, older] : [older, newer]))
          assert.deepStrictEqual([result.changed, result.superseded], [1, [swapped ? 1 : 0]])
          assert.deepStrictEqual((yield* factsOf(store, agentId))["\ufffd"]?.[0], "newer")
        })
    )

    it.effect("a row that a trigger mends is not refused for what it was", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const metadataTable = yield* makeTriggered("NEW.value := 'mended';")
        yield* sql.unsafe(
          `ALTER TABLE ${metadataTable} ADD CHECK (value <> 'bad'), ADD CHECK (value <> 'worse')`
        )
        const store = yield* PgStore.make({ metadataTable })
        const agentId = makeAgentId()
        const worse = batchOf([
          [agentId, "a", "bad", time],
          [agentId, "b", "worse", time],
          [agentId, "c", "good", time]
        ])
        assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(worse)), "Rejected")
        assert.strictEqual(yield* tagOf(store.batchUpdateMetadata(batchWith(agentId, [1]))), "written")
      })
    )

    it.effect("a row that a trigger skips is counted as missing, not as changed", () =>
      Effect.gen(function* () {
        const store = yield* PgStore.make({ metadataTable: yield* makeTriggered("RETURN NULL;") })
        const batch = batchWith(makeAgentId(), [5, 6])
        const result = yield* store.batchUpdateMetadata(batch)
        assert.strictEqual(result.changed, 98)
        assert.sameMembers(
          result.missing.map((position) => batch.keys[position]),
          ["key 5", "key 6"]
        )
      })
    )

    /** How many transaction ids were taken meanwhile. */
    const transactionIds = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
      const sql = yield* PgClient.PgClient
      const next = Effect.map(
        sql<{ readonly next: bigint }>`SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next`,
        ([row]) => Number(row?.next)
      )
      const before = yield* next
      yield* effect
      return (yield* next) - before
    })

    it.effect(
      "1 % of 1,000 statistics, and 10 %, are named, and take at most 2 transaction ids per batch",
      () =>
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const statsTable = yield* makeTable(
            "CONSTRAINT few CHECK (connection_count < 100)",
            "workspace_agent_stats"
          )
          const store = yield* PgStore.make({ statsTable })
          for (const share of [100, 10]) {
            const rows = Array.from({ length: 1_000 }, (_, n) =>
              makeStats({ connectionCount: n % share === 7 ? 100n : 1n })
            )
            const ids = yield* transactionIds(
              Effect.map(store.batchInsertStats(rows), ({ changed, refused }) => {
                assert.strictEqual(changed, 1_000 - 1_000 / share)
                assert.deepStrictEqual(
                  refused.map(({ position }) => position % share),
                  refused.map(() => 7)
                )
              })
            )
            assert.isAtMost(ids, 2)
          }
          // Once garbage is known to come, the statement does not even fail.
          const rows = Array.from({ length: 1_000 }, (_, n) =>
            makeStats({ connectionCount: n === 5 ? 100n : 1n })
          )
          assert.isAtMost(yield* transactionIds(store.batchInsertStats(rows)), 1)
          const [{ count } = { count: 0n }] = yield* sql.unsafe<{ readonly count: bigint }>(
            `SELECT count(*) FROM ${statsTable}`
          )
          assert.strictEqual(count, 990n + 900n + 999n)
        })
    )
  }
)
