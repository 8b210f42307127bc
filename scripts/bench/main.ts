/**
 * The bench. `node scripts/bench/main.ts` runs every row of the table,
 * `node scripts/bench/main.ts w1 add` those two.
 *
 *   --quick        one round of little work: whether it runs, not how fast
 *   --rounds <n>   samples of every contestant; default 7
 *   --seconds <n>  how long the stalled store is offered to, and agents are watched; default 30
 *   --out <dir>    where the figures go; default scripts/bench/results
 *
 * Prints a table per row and writes it as JSON; draws the chart once there is
 * JSON of `w1`, `w2` and `postgres`.
 */

import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { add } from "./add.ts"
import { draw } from "./chart.ts"
import { growth } from "./growth.ts"
import { ingest } from "./ingest.ts"
import { postgres } from "./postgres.ts"
import { print, type Row, save } from "./report.ts"
import { stalled } from "./stalled.ts"
import { telemetry } from "./telemetry.ts"
import { watch } from "./watch.ts"

interface Settings {
  readonly quick: boolean
  readonly rounds: number
  readonly seconds: number
}

const rows: Readonly<Record<string, (settings: Settings) => Promise<Row>>> = {
  w1: (settings) => ingest("w1", settings),
  w2: (settings) => ingest("w2", settings),
  add,
  postgres,
  stalled,
  growth,
  telemetry,
  watch
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
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
for (const name of names) {
  const row = await rows[name]?.(settings)
  if (row === undefined) continue
  print(row)
  save(out, row)
}
console.log(draw(out) ? `\nfigures and chart in ${out}` : `\nfigures in ${out}`)
