/**
 * Replicas of `serve` on one database, a fleet that reports to them, and people
 * who watch; they are killed, frozen, cut off and restarted, and what came of it
 * is looked at from outside.
 *
 *   node scripts/cluster/main.ts [--seed <n>] [--runs <n>] [--seconds <n>] [--replicas <n>] [--pgbouncer] [--redis]
 *
 * Each run has the next seed. Exits with 1 at the first that finds a fault, and
 * says which seed it was.
 */
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { run } from "./cluster.ts"
import { find } from "./programs.ts"

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    runs: { type: "string", default: "1" },
    seconds: { type: "string", default: "60" },
    replicas: { type: "string", default: "3" },
    agents: { type: "string", default: "60" },
    pgbouncer: { type: "boolean", default: false },
    redis: { type: "boolean", default: false },
    quiet: { type: "boolean", default: false }
  }
})

/** Where the program is, if it is asked for. */
const program = (isWanted: boolean, name: string, debianPackage: string): string | undefined => {
  const path = isWanted ? find(name) : undefined
  if (isWanted && path === undefined) {
    console.error(`${name} is not on the PATH: apt-get install ${debianPackage}`)
    process.exit(2)
  }
  return path
}
const pgbouncer = program(values.pgbouncer, "pgbouncer", "pgbouncer")
const redis = program(values.redis, "redis-server", "redis-server")
const seconds = Number(values.seconds)
const figure = (value: number) => Math.round(value).toLocaleString("en-US")

for (let seed = Number(values.seed); seed < Number(values.seed) + Number(values.runs); seed++) {
  const start = performance.now()
  const verdict = await Effect.runPromise(
    run({
      seed,
      replicas: Number(values.replicas),
      agents: Number(values.agents),
      seconds,
      rounds: Math.max(1, Math.round(seconds / 10)),
      pgbouncer,
      redis,
      say: (what) => {
        if (!values.quiet)
          console.log(`${((performance.now() - start) / 1_000).toFixed(1).padStart(6)} s  ${what}`)
      }
    })
  )
  console.log(
    `seed ${seed}: ${figure(verdict.accepted)} requests accepted, ${verdict.connects} streams opened, ` +
      `watchers caught up after ${verdict.convergenceMillis.map(figure).join(", ")} ms`
  )
  if (verdict.faults.length > 0) {
    console.log(`FAILED with seed ${seed}: ${verdict.faults.join("; ")}`)
    process.exit(1)
  }
}
console.log("PASSED")
process.exit(0)
