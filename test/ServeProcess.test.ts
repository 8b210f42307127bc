/** The server as its operator runs it: a process, a database, a signal, an exit code. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { faultsOf, startServer, stopUnderLoad } from "../scripts/soak/stop.ts"
import { EmbeddedPostgres } from "../src/app/EmbeddedPostgres.ts"
import * as Postgres from "./support/Postgres.ts"

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("SIGTERM under load", (it) => {
  it.effect(
    "everything that was answered with 202 is in the table, and it ends with 0",
    () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient()
        const verdict = yield* stopUnderLoad({
          databaseUrl: Postgres.urlOf(sql.config),
          clients: 4,
          agentsPerClient: 10,
          millis: 1_500
        })
        assert.deepStrictEqual(faultsOf(verdict), [], verdict.output)
        assert.strictEqual(verdict.keys, 400)
        assert.match(verdict.output, /stopping: writing what is left/)
        assert.match(verdict.output, /everything that was accepted is written/)
      }),
    60_000
  )

  it.effect(
    "what cannot be written in time is said, and it ends with 1",
    () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient()
        const database = yield* EmbeddedPostgres
        const server = yield* Effect.promise(() =>
          startServer(Postgres.urlOf(sql.config), [...["--flush-interval", "1m", "--shutdown-timeout", "1s"]])
        )
        const response = yield* Effect.promise(() =>
          fetch(`${server.url}/api/agents/3f2504e0-4f89-41d3-9a0c-0305e82c3301/metadata`, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({
              facts: [
                { key: "cpu", value: "1" },
                { key: "disk", value: "2" }
              ]
            })
          })
        )
        assert.strictEqual(response.status, 202)
        yield* database.stop("immediate")
        server.child.kill("SIGTERM")
        assert.strictEqual(yield* Effect.promise(() => server.ended), 1)
        assert.match(server.lines.join("\n"), /LOST: 2 records were accepted and not written/)
        yield* database.start
      }),
    60_000
  )
})

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("Retention", (it) => {
  it.effect(
    "nothing is deleted unless an age is given, and then only what it is given for",
    () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient()
        const retains = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
          const { child, ended, lines, url } = yield* Effect.promise(() =>
            startServer(Postgres.urlOf(sql.config), args)
          )
          const metrics = yield* Effect.promise(async () => (await fetch(`${url}/metrics`)).text())
          child.kill("SIGTERM")
          assert.strictEqual(yield* Effect.promise(() => ended), 0)
          return {
            tables: Array.from(
              metrics.matchAll(/^agentapi_retention_deleted_rows_total\{.*table="(\w+)".*\} 0$/gm),
              ([, table]) => table
            ),
            said: lines.filter((line) => line.startsWith("retention"))
          }
        })
        const [off, some, all] = yield* Effect.all(
          [
            retains(),
            retains("--retain-stats", "36h"),
            retains("--retain-agents", "30d", "--retain-stats", "1d")
          ],
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(off, { tables: [], said: [] })
        assert.deepStrictEqual(some.tables, ["stats"])
        assert.deepStrictEqual(some.said, ["retention    statistics are deleted after 1d 12h"])
        assert.sameMembers(all.tables, ["metadata", "stats"])
        assert.include(all.said, "retention    agents are deleted 30d after their last report")
      }),
    90_000
  )
})
