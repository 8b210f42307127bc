/** A fact's value is in no error and in no span, whatever PostgreSQL says of it. */

import * as Inspectable from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, makeAgentId, makeStats } from "./conformance/StoreSuite.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"
import { withSpans } from "./support/Spans.ts"

const secret = "hunter2"

const actions: ReadonlyArray<readonly [sqlState: string, action: string]> = [
  ["22P02", "PERFORM NEW.value::int;"],
  ["P0001", "RAISE EXCEPTION '%', NEW.value USING DETAIL = NEW.value, HINT = NEW.value;"],
  ["XX999", "RAISE EXCEPTION '%', NEW.value USING ERRCODE = 'XX999';"],
  ["42P01", "EXECUTE format('SELECT FROM %I', NEW.value);"],
  ["42883", "EXECUTE format('SELECT %I()', NEW.value);"]
]

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("No value", (it) => {
  it.effect.each(actions)("in what is said of a write that fails with %s", ([sqlState, action]) =>
    withSpans((spans) =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const name = `t_${sqlState.toLowerCase()}`
        yield* sql.unsafe(`CREATE TABLE ${name} (LIKE workspace_agent_metadata INCLUDING ALL)`)
        yield* sql.unsafe(`CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN ${action} RETURN NEW; END $$`)
        yield* sql.unsafe(
          `CREATE TRIGGER says BEFORE INSERT ON ${name} FOR EACH ROW EXECUTE FUNCTION ${name}()`
        )
        const store = yield* PgStore.make({ metadataTable: name })
        const write = store.batchUpdateMetadata(
          batchOf([
            [makeAgentId(), "a", secret, 0],
            [makeAgentId(), "b", secret, 0]
          ])
        )
        const cause = yield* Effect.flip(Effect.sandbox(write))
        for (const said of [
          Cause.pretty(cause),
          Inspectable.inspect(cause, { depth: 20 }),
          JSON.stringify(cause)
        ]) {
          assert.include(said, sqlState)
          assert.notInclude(said, secret)
        }
        assert.isAbove(spans.all().length, 0)
        assert.notInclude(Inspectable.inspect(spans.all(), { depth: 20 }), secret)
      })
    )()
  )

  it.effect("in what is said of rows that the client or a constraint refuses", () =>
    withSpans((spans) =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE checked (LIKE workspace_agent_metadata INCLUDING ALL, CHECK (value NOT LIKE 'hunter_'))`
        const store = yield* PgStore.make({ metadataTable: "checked" })
        const agentId = makeAgentId()
        const facts = yield* store.batchUpdateMetadata(
          batchOf([
            [agentId, "a", secret, 0],
            [agentId, "b", "", 0],
            [agentId, `${secret}\0`, "", 0],
            [secret as never, "c", "", 0]
          ])
        )
        const stats = yield* store.batchInsertStats([makeStats({ userId: secret }), makeStats()])
        assert.deepStrictEqual([facts.refused.length, stats.refused.length], [3, 1])
        assert.notInclude(JSON.stringify([facts, stats]), secret)
        assert.notInclude(Inspectable.inspect(spans.all(), { depth: 20 }), secret)
      })
    )()
  )
})
