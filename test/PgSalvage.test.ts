import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { AgentId } from "../src/AgentId.ts"
import type { MetadataBatch } from "../src/Metadata.ts"
import * as PgStore from "../src/PgStore.ts"
import type * as Store from "../src/Store.ts"
import { batchOf, factsOf, makeAgentId } from "./conformance/StoreSuite.ts"
import * as Postgres from "./support/Postgres.ts"

const time = 1_700_000_000_000

/** A table of its own, in which the value "bad" is not allowed. */
const makeTable = Effect.fnUntraced(function* (constraint = "CHECK (value <> 'bad')") {
  const sql = yield* PgClient.PgClient
  const name = `t${crypto.randomUUID().replaceAll("-", "")}`
  yield* sql.unsafe(`CREATE TABLE ${name} (LIKE workspace_agent_metadata INCLUDING ALL, ${constraint})`)
  return name
})

/** A table of its own, with a trigger that does this to a bad row. */
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

const writtenOf = (store: Store.Store["Service"], agentId: AgentId) =>
  Effect.map(factsOf(store, agentId), (facts) => new Set(Object.keys(facts)))

const keysWithout = (bad: ReadonlyArray<number>) =>
  new Set(
    Array.from({ length: 100 }, (_, key) => key).flatMap((key) => (bad.includes(key) ? [] : [`key ${key}`]))
  )

/** The keys a failed write names, and whether it has written the others. */
const rejectionOf = Effect.fnUntraced(function* (store: Store.Store["Service"], batch: MetadataBatch) {
  const { reason } = yield* Effect.flip(store.batchUpdateMetadata(batch))
  if (reason._tag !== "Rejected") return reason._tag
  return {
    keys: reason.rows?.map((row) => batch.keys[row]).sort(),
    othersWritten: reason.othersWritten
  }
})

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "A batch with rows that the database refuses",
  (it) => {
    it.effect.each([{ onlyExisting: false }, { onlyExisting: true }])(
      "is written without them, and they are named: %o",
      (options) =>
        Effect.gen(function* () {
          const metadataTable = yield* makeTable()
          const store = yield* PgStore.make({ metadataTable, ...options })
          const agentId = makeAgentId()
          const upsert = yield* PgStore.make({ metadataTable })
          if (options.onlyExisting) yield* upsert.batchUpdateMetadata(batchWith(agentId, [], 0))
          for (const [round, bad] of [[7], [0, 1, 2, 50, 99], [31, 32, 33], [99], [0]].entries()) {
            const at = time + round
            assert.deepStrictEqual(yield* rejectionOf(store, batchWith(agentId, bad, at)), {
              keys: bad.map((key) => `key ${key}`).sort(),
              othersWritten: true
            })
            const facts = yield* factsOf(store, agentId)
            const written = Object.keys(facts).filter((key) => facts[key]?.[2] === at)
            assert.deepStrictEqual(new Set(written), keysWithout(bad))
          }
          yield* store.batchUpdateMetadata(batchWith(agentId, [], time + 10))
          const facts = Object.values(yield* factsOf(store, agentId))
          assert.strictEqual(facts.filter(([, , at]) => at === time + 10).length, 100)
        })
    )

    it.effect("is refused as a whole if every row is", () =>
      Effect.gen(function* () {
        const store = yield* PgStore.make({ metadataTable: yield* makeTable() })
        const agentId = makeAgentId()
        const all = Array.from({ length: 100 }, (_, key) => key)
        assert.deepStrictEqual(yield* rejectionOf(store, batchWith(agentId, all)), {
          keys: all.map((key) => `key ${key}`).sort(),
          othersWritten: true
        })
        assert.deepStrictEqual(yield* factsOf(store, agentId), {})
      })
    )

    it.effect.each([
      "RAISE EXCEPTION 'no';",
      // Codes of an application's own, as triggers choose them.
      "RAISE EXCEPTION 'no' USING ERRCODE = 'QU001';",
      "RAISE EXCEPTION 'no' USING ERRCODE = '45000';",
      "RAISE insufficient_privilege;",
      "RAISE not_null_violation;",
      "RAISE program_limit_exceeded;",
      "CASE NEW.value WHEN 'good' THEN NULL; END CASE;"
    ])("is written without them, whatever code a trigger refuses them with: %s", (action) =>
      Effect.gen(function* () {
        const store = yield* PgStore.make({ metadataTable: yield* makeTriggered(action) })
        const agentId = makeAgentId()
        // Before and after the store knows of garbage.
        for (const round of [0, 1]) {
          assert.deepStrictEqual(yield* rejectionOf(store, batchWith(agentId, [7, 50], time + round)), {
            keys: ["key 50", "key 7"],
            othersWritten: true
          })
          assert.deepStrictEqual(yield* writtenOf(store, agentId), keysWithout([7, 50]))
        }
      })
    )

    it.effect("is written without those that row-level security refuses", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const metadataTable = yield* makeTable("CHECK (true)")
        yield* sql.unsafe(`ALTER TABLE ${metadataTable} ENABLE ROW LEVEL SECURITY`)
        yield* sql.unsafe(`CREATE POLICY good ON ${metadataTable} USING (true) WITH CHECK (value <> 'bad')`)
        yield* sql`CREATE ROLE secured LOGIN`
        yield* sql.unsafe(`GRANT ALL ON ${metadataTable} TO secured`)
        yield* sql`GRANT TEMPORARY ON DATABASE postgres TO secured`
        const client = yield* Postgres.makeClient({ username: "secured" })
        const store = yield* Effect.provideService(PgStore.make({ metadataTable }), PgClient.PgClient, client)
        assert.deepStrictEqual(yield* rejectionOf(store, batchWith(makeAgentId(), [7])), {
          keys: ["key 7"],
          othersWritten: true
        })
      })
    )

    it.effect("is kept if every row is refused with what may be the server's own trouble", () =>
      Effect.gen(function* () {
        // A server near transaction ID wraparound answers every write so.
        const wraparound = "RAISE program_limit_exceeded;"
        const store = yield* PgStore.make({ metadataTable: yield* makeTriggered(wraparound) })
        const agentId = makeAgentId()
        const all = Array.from({ length: 100 }, (_, key) => key)
        // Also after the store has come to know garbage.
        for (const round of [0, 1]) {
          assert.strictEqual(yield* rejectionOf(store, batchWith(agentId, all, time)), "Unavailable")
          yield* rejectionOf(store, batchWith(agentId, [round], time))
          assert.strictEqual(yield* rejectionOf(store, batchWith(agentId, all, time)), "Unavailable")
        }
      })
    )

    it.effect("is kept if the table has a column that nobody fills", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const metadataTable = yield* makeTable()
        yield* sql.unsafe(`ALTER TABLE ${metadataTable} ADD COLUMN extra int NOT NULL`)
        const store = yield* PgStore.make({ metadataTable })
        const agentId = makeAgentId()
        assert.strictEqual(yield* rejectionOf(store, batchWith(agentId, [])), "Unavailable")
        yield* sql.unsafe(`ALTER TABLE ${metadataTable} ALTER COLUMN extra SET DEFAULT 0`)
        yield* store.batchUpdateMetadata(batchWith(agentId, []))
        assert.deepStrictEqual(yield* writtenOf(store, agentId), keysWithout([]))
      })
    )

    it.effect.each([false, true])("keeps the newer of two facts that are of one row: %s", (swapped) =>
      Effect.gen(function* () {
        const metadataTable = yield* makeTable()
        const upsert = yield* PgStore.make({ metadataTable })
        const store = yield* PgStore.make({ metadataTable, onlyExisting: true })
        const agentId = makeAgentId()
        yield* upsert.batchUpdateMetadata(batchOf([[agentId, "\ufffd", "first", time]]))
        // PostgreSQL keeps either lone surrogate as U+FFFD.
        const older = [agentId, "\ud800", "older", time + 1] as const
        const newer = [agentId, "\ud801", "newer", time + 2] as const
        yield* store.batchUpdateMetadata(batchOf(swapped ? [newer, older] : [older, newer]))
        assert.deepStrictEqual((yield* factsOf(store, agentId))["\ufffd"]?.[0], "newer")
      })
    )

    it.effect("never replaces newer facts by older ones on the way", () =>
      Effect.gen(function* () {
        const store = yield* PgStore.make({ metadataTable: yield* makeTable() })
        const agentId = makeAgentId()
        yield* store.batchUpdateMetadata(batchWith(agentId, [], time + 1))
        yield* rejectionOf(store, batchWith(agentId, [5], time))
        yield* rejectionOf(store, batchWith(agentId, [5], time))
        const facts = Object.values(yield* factsOf(store, agentId))
        assert.deepStrictEqual(new Set(facts.map(([, , at]) => at)), new Set([time + 1]))
      })
    )

    it.effect("is written without them where a constraint is checked at the end of the transaction", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE agents (id uuid PRIMARY KEY)`
        const metadataTable = yield* makeTable(
          "FOREIGN KEY (workspace_agent_id) REFERENCES agents DEFERRABLE INITIALLY DEFERRED"
        )
        const store = yield* PgStore.make({ metadataTable })
        const [known, unknown] = [makeAgentId(), makeAgentId()]
        yield* sql`INSERT INTO agents VALUES (${known})`
        const batch = batchOf([
          [unknown, "of no agent", "", time],
          [known, "cpu", "", time]
        ])
        assert.deepStrictEqual(yield* rejectionOf(store, batch), {
          keys: ["of no agent"],
          othersWritten: true
        })
        assert.deepStrictEqual(yield* writtenOf(store, known), new Set(["cpu"]))
      })
    )

    it.effect("is written without them through every connection of the pool, and by several writers", () =>
      Effect.gen(function* () {
        const metadataTable = yield* makeTable()
        // More writers than connections: one of them finds no function, and gets another that has it.
        const client = yield* Postgres.makeClient({ maxConnections: 4 })
        const store = yield* Effect.provideService(PgStore.make({ metadataTable }), PgClient.PgClient, client)
        const agentId = makeAgentId()
        const rejections = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, round) => round),
          (round) => rejectionOf(store, batchWith(agentId, [round], time + round)),
          { concurrency: 8 }
        )
        rejections.forEach((rejection, round) => {
          assert.deepStrictEqual(rejection, { keys: [`key ${round}`], othersWritten: true })
        })
        const facts = Object.entries(yield* factsOf(store, agentId))
        const expected = Array.from({ length: 100 }, (_, key) => [
          `key ${key}`,
          key === 39 ? time + 38 : time + 39
        ])
        assert.deepStrictEqual(
          new Map(facts.map(([key, [, , at]]) => [key, at])),
          new Map(expected as Array<[string, number]>)
        )
      })
    )

    it.effect("is refused as a whole, naming none, where there may be no temporary function", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC`
        yield* sql`CREATE ROLE restricted LOGIN`
        const metadataTable = yield* makeTable()
        yield* sql.unsafe(`GRANT ALL ON ${metadataTable} TO restricted`)
        const client = yield* Postgres.makeClient({ username: "restricted" })
        const store = yield* Effect.provideService(PgStore.make({ metadataTable }), PgClient.PgClient, client)
        const agentId = makeAgentId()
        assert.deepStrictEqual(yield* rejectionOf(store, batchWith(agentId, [7])), {
          keys: undefined,
          othersWritten: false
        })
        assert.deepStrictEqual(yield* factsOf(store, agentId), {})
      })
    )

    it.effect("fails for what is not in the rows as any other, and writes nothing", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const metadataTable = yield* makeTable()
        const client = yield* Postgres.makeClient({ startupParameters: { lock_timeout: "100" } })
        const store = yield* Effect.provideService(PgStore.make({ metadataTable }), PgClient.PgClient, client)
        const agentId = makeAgentId()
        const lastKey = "key 99"
        yield* store.batchUpdateMetadata(batchOf([[agentId, lastKey, "held", time]]))
        yield* rejectionOf(store, batchWith(agentId, [7], time - 1))
        const before = yield* factsOf(store, agentId)
        const failure = yield* sql.withTransaction(
          Effect.andThen(
            sql.unsafe(`SELECT FROM ${metadataTable} WHERE key = '${lastKey}' FOR UPDATE`),
            rejectionOf(store, batchWith(agentId, [7], time + 1))
          )
        )
        assert.strictEqual(failure, "Unavailable")
        assert.deepStrictEqual(yield* factsOf(store, agentId), before)
      })
    )
  }
)
