/**
 * The bench. `node scripts/bench/main.ts` runs every row of the table,
 * `node scripts/bench/main.ts w1 add` those two.
 *
 *   --against <revision>  race the code of that revision beside the working tree's
 *   --quick               one round of little work: whether it runs, not how fast
 *   --rounds <n>          samples of every contestant; default 7
 *   --seconds <n>         how long the stalled store is offered to; default 30
 *   --out <dir>           where the figures go; default scripts/bench/results
 *
 * Prints a table per row and writes it as JSON; draws the chart once there is
 * JSON of `w1`, `w2` and `postgres`. A race against a revision is only printed,
 * unless `--out` says where to keep it.
 */

import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { add, addAgainst } from "./add.ts"
import { draw } from "./chart.ts"
import { growth, growthAgainst } from "./growth.ts"
import { ingest, ingestAgainst } from "./ingest.ts"
import { checkOut, resolveRevision } from "./library.ts"
import { postgres, postgresAgainst } from "./postgres.ts"
import { print, type Row, save } from "./report.ts"
import { stalled, stalledAgainst } from "./stalled.ts"
import { telemetry, telemetryAgainst } from "./telemetry.ts"

interface Settings {
  readonly quick: boolean
  readonly rounds: number
  readonly seconds: number
}

type Measure = (settings: Settings) => Promise<Row>

const rows: Readonly<Record<string, Measure>> = {
  w1: (settings) => ingest("w1", settings),
  w2: (settings) => ingest("w2", settings),
  add,
  postgres,
  stalled,
  growth,
  telemetry
}

/** The same rows, with the sources of another revision in the race. */
const rowsAgainst = (sources: string): typeof rows => ({
  w1: (settings) => ingestAgainst("w1", sources, settings),
  w2: (settings) => ingestAgainst("w2", sources, settings),
  add: (settings) => addAgainst(sources, settings),
  postgres: (settings) => postgresAgainst(sources, settings),
  stalled: (settings) => stalledAgainst(sources, settings),
  growth: (settings) => growthAgainst(sources, settings),
  telemetry: (settings) => telemetryAgainst(sources, settings)
})

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    against: { type: "string" },
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" },
    out: { type: "string" }
  }
})
const { quick } = values
const settings: Settings = {
  quick,
  rounds: Number(values.rounds ?? (quick ? 1 : 7)),
  seconds: Number(values.seconds ?? (quick ? 3 : 30))
}
// A quick run's figures are no figures: they do not replace measured ones.
const out =
  values.out ??
  (quick ? join(tmpdir(), "effect-metadata-batcher-bench") : join(import.meta.dirname, "results"))

const names = positionals.length > 0 ? positionals : Object.keys(rows)
const unknown = names.filter((name) => !(name in rows))
if (unknown.length > 0) {
  console.error(`no row is called ${unknown.join(", ")}; there are ${Object.keys(rows).join(", ")}`)
  process.exit(2)
}
const revision = values.against === undefined ? undefined : resolveRevision(values.against)
if (revision === null) {
  console.error(`no revision is called ${values.against}`)
  process.exit(2)
}
const run = async (measures: typeof rows, keep: (row: Row) => void) => {
  for (const name of names) {
    const row = await measures[name]?.(settings)
    if (row === undefined) continue
    print(row)
    keep(row)
  }
}

if (revision === undefined) {
  await run(rows, (row) => save(out, row))
  console.log(draw(out) ? `\nfigures and chart in ${out}` : `\nfigures in ${out}`)
} else {
  using against = checkOut(revision)
  console.log(`before: ${revision}`)
  await run(rowsAgainst(against.sources), (row) => {
    if (values.out !== undefined) save(values.out, row)
  })
}
