/**
 * Four processes race for 2,000 keys for a minute.
 *
 *   node scripts/soak/replicas.ts [--processes <n>] [--seconds <n>]
 *
 * Exits with 1 unless there was no deadlock, no stale value and no fact lost.
 */
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import { faultsOf, race } from "./race.ts"

const database = PgMigrations.layer().pipe(
  Layer.provideMerge(EmbeddedPostgres.layerClient()),
  Layer.provideMerge(EmbeddedPostgres.layer())
)

const { values } = parseArgs({
  options: { processes: { type: "string", default: "4" }, seconds: { type: "string", default: "60" } }
})

const verdict = await Effect.runPromise(
  Effect.provide(race({ processes: Number(values.processes), seconds: Number(values.seconds) }), database)
)
const figure = (value: number) => Math.round(value).toLocaleString("en-US")
console.log(
  `${verdict.processes} processes, ${figure(verdict.keys)} keys, ${figure(verdict.offered)} facts offered: ` +
    `${figure(verdict.factsPerSecond)} facts/s, ${figure(verdict.rowsPerSecond)} rows/s`
)
console.log(
  `deadlocks ${verdict.deadlocks}, failed writes ${JSON.stringify(verdict.failures)}, ` +
    `stale values ${verdict.stale}, went back ${verdict.regressions}, lost ${verdict.lost}, ` +
    `keys won by each process ${verdict.won.join(" + ")}`
)
const faults = faultsOf(verdict)
console.log(faults.length === 0 ? "PASSED" : `FAILED: ${faults.join("; ")}`)
process.exitCode = faults.length === 0 ? 0 : 1
