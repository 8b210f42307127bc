/**
 * The bench. `node scripts/bench/main.ts` runs every row of the table,
 * `node scripts/bench/main.ts w1 add` those two.
 *
 *   --against <revision>  race the code of that revision beside the working tree's
 *   --quick               one round of little work: whether it runs, not how fast
 *   --rounds <n>          samples of every contestant; default 7
 *   --seconds <n>         how long the stalled store is offered to, and agents are watched; default 30
 *   --out <dir>           where the figures go; default scripts/bench/results
 *
 * Prints a table per row and writes it as JSON; draws the chart once there is
 * JSON of `w1`, `w2` and `postgres`. A race against a revision is only printed,
 * unless `--out` says where to keep it.
 */

import { argumentsOf } from "./arguments.ts"
import { draw } from "./chart.ts"
import { checkOut, resolveRevision } from "./library.ts"
import { print, type Row, save } from "./report.ts"
import { rows, rowsAgainst } from "./rows.ts"

const refuse = (message: string): never => {
  console.error(message)
  process.exit(2)
}

const { against, figures, kept, names, settings, unknown } = argumentsOf(process.argv.slice(2))
if (unknown.length > 0) {
  refuse(`no row is called ${unknown.join(", ")}; there are ${Object.keys(rows).join(", ")}`)
}

const run = async (measures: typeof rows, keep: (row: Row) => void) => {
  for (const name of names) {
    const row = await measures[name]?.(settings)
    if (row === undefined) continue
    print(row)
    keep(row)
  }
}

if (against === undefined) {
  await run(rows, (row) => save(figures, row))
  console.log(draw(figures) ? `\nfigures and chart in ${figures}` : `\nfigures in ${figures}`)
} else {
  const commit = resolveRevision(against) ?? refuse(`no revision is called ${against}`)
  using revision = checkOut(commit)
  console.log(`before: ${commit}`)
  await run(rowsAgainst(revision.sources), (row) => {
    if (kept) save(figures, row)
  })
}
