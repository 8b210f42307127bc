/** What the bench is told on its command line. */
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { rows, type Settings } from "./rows.ts"

export const argumentsOf = (args: ReadonlyArray<string>) => {
  const { positionals, values } = parseArgs({
    args: Array.from(args),
    allowPositionals: true,
    options: {
      against: { type: "string" },
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      seconds: { type: "string" },
      out: { type: "string" }
    }
  })
  const { against, out, quick } = values
  const settings: Settings = {
    quick,
    rounds: Number(values.rounds ?? (quick ? 1 : 7)),
    seconds: Number(values.seconds ?? (quick ? 3 : 30))
  }
  // A quick run's figures are no figures: they do not replace measured ones.
  const figures =
    out ?? (quick ? join(tmpdir(), "effect-metadata-batcher-bench") : join(import.meta.dirname, "results"))
  return {
    /** The rows to run, in order, and those that there are not. */
    names: positionals.length > 0 ? positionals : Object.keys(rows),
    unknown: positionals.filter((name) => !(name in rows)),
    /** The revision to race. */
    against,
    /** The folder for the figures, and whether it was named. */
    figures,
    kept: out !== undefined,
    settings
  }
}
