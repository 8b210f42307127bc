/** The server as its operator runs it: a process, a database, a signal, an exit code. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { faultsOf, stopUnderLoad } from "../scripts/soak/stop.ts"
import * as Postgres from "./support/Postgres.ts"

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("SIGTERM under load", (it) => {
  it.effect(
    "everything that was answered with 202 is in the table, and it ends with 0",
    () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient()
        const verdict = yield* stopUnderLoad({
          databaseUrl: `postgres://postgres@localhost/postgres?host=${sql.config.host}`,
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
})
