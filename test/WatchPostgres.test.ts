import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { disturb, faultsOf } from "../scripts/soak/disturbed.ts"
import * as PgStore from "../src/PgStore.ts"
import { makeAgentId } from "./support/Fakes.ts"
import * as Postgres from "./support/Postgres.ts"

/** The text that `metadataOf` sends. */
const statement = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const sent: Array<string> = []
  const reserve = Effect.map(sql.reserve, (connection): typeof connection =>
    Object.assign(Object.create(connection), {
      executeRaw: (text: string, parameters: ReadonlyArray<unknown>) => {
        sent.push(text)
        return connection.executeRaw(text, parameters)
      }
    })
  )
  const recording = new Proxy(sql, {
    get: (target, name) => (name === "reserve" ? reserve : Reflect.get(target, name))
  })
  const store = yield* Effect.provideService(PgStore.make(), PgClient.PgClient, recording)
  yield* store.metadataOf([makeAgentId()])
  // The store looks at its table as well.
  return sent.filter((text) => text.includes("ANY ($1::uuid[])")).join("")
})

layer(Postgres.layer, { excludeTestServices: true, timeout: "60 seconds" })("Watching PostgreSQL", (it) => {
  it.effect(
    "backends that listen killed under load, and a crash: no stale value in the end, no stream ended",
    () =>
      Effect.gen(function* () {
        const verdict = yield* disturb({ agents: 20, kills: 20, restarts: 2 })
        assert.deepStrictEqual(faultsOf(verdict), [], JSON.stringify(verdict))
        assert.deepInclude(verdict, { kills: 20, restarts: 2, watchers: 40 })
      }).pipe(Effect.provide(Logger.layer([]))),
    120_000
  )

  it.effect("reads 1 agent and 10,000 by the primary key, planned once for all or each time anew", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      yield* sql`TRUNCATE workspace_agent_metadata`
      yield* sql`INSERT INTO workspace_agent_metadata
        SELECT md5(i::text)::uuid, 'key ' || k, 'value', '', now()
        FROM generate_series(1, 100000) i, generate_series(1, 2) k`
      const rows = yield* sql<{ readonly id: string }>`
        SELECT md5(i::text)::uuid AS id FROM generate_series(1, 10000) i`
      const agentIds = rows.map(({ id }) => id)
      yield* sql`ANALYZE workspace_agent_metadata`
      const text = yield* statement
      const connection = yield* sql.reserve
      yield* connection.executeRaw(`PREPARE read (uuid[]) AS ${text}`, [])
      for (const mode of ["force_custom_plan", "force_generic_plan"]) {
        yield* connection.executeRaw(`SET plan_cache_mode = ${mode}`, [])
        for (const count of [1, 10_000]) {
          const ids = `'{${agentIds.slice(0, count).join(",")}}'`
          const plan = JSON.stringify(
            yield* connection.execute(`EXPLAIN (FORMAT JSON) EXECUTE read(${ids})`, [], undefined)
          )
          assert.match(plan, /"Index Name":\s*"workspace_agent_metadata_pkey"/, `${mode}, ${count} agents`)
          assert.notInclude(plan, "Seq Scan")
        }
      }
    }).pipe(Effect.scoped)
  )
})
