/**
 * SIGTERM to a server under load, over and over.
 *
 *   node scripts/soak/sigterm.ts [--rounds <n>]
 *
 * Exits with 1 unless each time everything that was answered with 202 is in the
 * table, and the server ended with 0.
 */
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import { faultsOf, stopUnderLoad } from "./stop.ts"

const { values } = parseArgs({ options: { rounds: { type: "string", default: "20" } } })
const rounds = Number(values.rounds)

const database = EmbeddedPostgres.layerClient().pipe(Layer.provideMerge(EmbeddedPostgres.layer()))
const figure = (value: number) => value.toLocaleString("en-US")

const failed = await Effect.runPromise(
  Effect.gen(function* () {
    const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
    let failed = 0
    for (let round = 1; round <= rounds; round++) {
      const verdict = yield* stopUnderLoad({
        databaseUrl: `postgres://postgres@localhost/postgres?host=${config.host}`,
        clients: 8,
        agentsPerClient: 20,
        // The signal comes at another moment of the batcher's interval each time.
        millis: 1_000 + round * 37
      })
      const faults = faultsOf(verdict)
      if (faults.length > 0) failed += 1
      console.log(
        `round ${round}: accepted ${figure(verdict.accepted)} facts, ${figure(verdict.keys)} keys, refused ${verdict.refused} requests, ` +
          `stopped in ${figure(verdict.stopMillis)} ms, exit code ${verdict.exitCode}: ${faults.join("; ") || "nothing lost"}`
      )
    }
    return failed
  }).pipe(Effect.scoped, Effect.provide(database))
)
console.log(failed === 0 ? "PASSED" : `FAILED: ${failed} of ${rounds}`)
process.exitCode = failed === 0 ? 0 : 1
