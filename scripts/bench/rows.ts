/** The rows of the bench by name. */
import { add, addAgainst } from "./add.ts"
import { growth, growthAgainst } from "./growth.ts"
import { ingest, ingestAgainst } from "./ingest.ts"
import { postgres, postgresAgainst } from "./postgres.ts"
import type { Row } from "./report.ts"
import { stalled, stalledAgainst } from "./stalled.ts"
import { telemetry, telemetryAgainst } from "./telemetry.ts"
import { unchangedAgainst, unchangedRow } from "./unchanged.ts"
import { watch } from "./watch.ts"

export interface Settings {
  readonly quick: boolean
  readonly rounds: number
  readonly seconds: number
}

type Measure = (settings: Settings) => Promise<Row>

export const rows: Readonly<Record<string, Measure>> = {
  w1: (settings) => ingest("w1", settings),
  w2: (settings) => ingest("w2", settings),
  add,
  postgres,
  stalled,
  growth,
  telemetry,
  unchanged: unchangedRow,
  watch
}

/** The same rows, with the sources of another revision in the race. */
export const rowsAgainst = (sources: string): typeof rows => ({
  w1: (settings) => ingestAgainst("w1", sources, settings),
  w2: (settings) => ingestAgainst("w2", sources, settings),
  add: (settings) => addAgainst(sources, settings),
  postgres: (settings) => postgresAgainst(sources, settings),
  stalled: (settings) => stalledAgainst(sources, settings),
  growth: (settings) => growthAgainst(sources, settings),
  telemetry: (settings) => telemetryAgainst(sources, settings),
  unchanged: (settings) => unchangedAgainst(sources, settings)
})
