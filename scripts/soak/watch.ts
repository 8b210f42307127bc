/**
 * Watches 200 agents while the backend that listens is killed 200 times and the
 * server crashes twice, under 2,000 facts a second.
 *
 *   node scripts/soak/watch.ts [--kills <n>] [--restarts <n>]
 *
 * Exits with 1 if a watcher does not show what the table holds in the end, or
 * its stream ended, or it went back in time.
 */
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import { disturb, faultsOf } from "./disturbed.ts"

const database = PgMigrations.layer().pipe(
  Layer.provideMerge(EmbeddedPostgres.layerClient()),
  Layer.provideMerge(EmbeddedPostgres.layer())
)

const { values } = parseArgs({
  options: { kills: { type: "string", default: "200" }, restarts: { type: "string", default: "2" } }
})

const verdict = await Effect.runPromise(
  disturb({ agents: 200, kills: Number(values.kills), restarts: Number(values.restarts) }).pipe(
    Effect.provide(database),
    Effect.provide(Logger.layer([]))
  )
)
const figure = (value: number) => value.toLocaleString("en-US")
console.log(
  `${figure(verdict.watchers)} watchers, ${figure(verdict.written)} facts written, ` +
    `${verdict.kills} listening backends killed, ${verdict.restarts} restarts`
)
console.log(
  `shown ${figure(verdict.shown)} (stale meanwhile ${figure(verdict.shownStale)}), stale in the end ` +
    `${verdict.stale}, streams ended ${verdict.ended}, went back ${verdict.regressions}`
)
const faults = faultsOf(verdict)
console.log(faults.length === 0 ? "PASSED" : `FAILED: ${faults.join("; ")}`)
process.exitCode = faults.length === 0 ? 0 : 1
