/**
 * The bad days, over and over: random plans under a simulated clock, the faults
 * of a real PostgreSQL, processes racing for the same keys, garbage, and the
 * server under load.
 *
 *   npm run test:soak -- [--minutes <n>] [--dry-run]
 *
 * `--dry-run` says what would be run, and runs nothing.
 *
 * Half of the time goes to the plans, half to the faults; the race, the
 * garbage, the signals and the watchers take a minute or two each on top. Stops
 * at what fails first and exits with 1.
 */
import { spawn } from "node:child_process"
import { join } from "node:path"
import { parseArgs } from "node:util"

const root = join(import.meta.dirname, "../..")
const vitest = [
  join(root, "node_modules/vitest/vitest.mjs"),
  "run",
  "--config",
  join(root, "test/vitest.config.ts")
]

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "10" }, "dry-run": { type: "boolean", default: false } }
})
const minutes = Number(values.minutes)
if (!(minutes > 0)) {
  console.error(`--minutes must be a number above 0, got ${values.minutes}`)
  process.exit(2)
}

const run = async (what: string, args: ReadonlyArray<string>, environment?: Record<string, string>) => {
  const started = performance.now()
  console.log(`\n## ${what}\n`)
  if (values["dry-run"]) return
  const code = await new Promise<number | null>((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      stdio: "inherit",
      env: { ...process.env, ...environment }
    })
    child.once("error", reject)
    child.once("exit", resolve)
  })
  const seconds = Math.round((performance.now() - started) / 1000)
  if (code !== 0) {
    console.error(`\nFAILED after ${seconds} s: ${what}`)
    process.exit(1)
  }
  console.log(`\npassed in ${seconds} s: ${what}`)
}

await run(`random plans for ${minutes / 2} minutes`, [...vitest, "Simulation.test.ts"], {
  SOAK_MINUTES: `${minutes / 2}`
})
const end = performance.now() + (minutes / 2) * 60_000
let rounds = 0
do
  await run(`faults of PostgreSQL, round ${++rounds}`, [
    ...vitest,
    "PgFaults.test.ts",
    "RefusedRowsPg.test.ts"
  ])
while (performance.now() < end && !values["dry-run"])
await run("300 lost connections in a row", [...vitest, "PgPubsub.test.ts", "RedisPubsub.test.ts"], {
  SOAK_LOSSES: "300"
})
await run("4 processes racing for 2,000 keys for a minute", [join(import.meta.dirname, "replicas.ts")])
await run("200 listening backends killed and two crashes, watched", [join(import.meta.dirname, "watch.ts")])
await run("2,000 builds of layers interrupted", [join(import.meta.dirname, "interruptedBuilds.ts")])
await run("1 % poisoned facts", [join(import.meta.dirname, "poison.ts")])
await run("SIGTERM to a server under load, 20 times", [join(import.meta.dirname, "sigterm.ts")])
await run("5,000 watchers over HTTP for a minute", [join(import.meta.dirname, "sse.ts")])
if (!values["dry-run"]) console.log("\nPASSED")
