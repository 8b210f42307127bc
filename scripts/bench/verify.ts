/**
 * Before a contestant is timed it has to deliver: on a shorter run of the same
 * workload, with facts that arrive out of order and a store that takes its
 * time, the store must end with what a plain fold of all reports gives.
 */
import * as assert from "node:assert/strict"
import type { MetadataBatch } from "../../src/Metadata.ts"
import type { Contestant, Sink } from "./contestant.ts"
import { columns } from "./newestWins.ts"
import { makeReports, type Workload } from "./workload.ts"

type Held = { readonly value: string; readonly at: number }

/** Newest wins, the later of two equally new ones. */
const foldInto = (state: Map<string, Held>, batch: MetadataBatch) => {
  batch.keys.forEach((key, i) => {
    const id = `${batch.agentIds[i]}/${key}`
    const at = batch.collectedAt[i] ?? Number.NaN
    const held = state.get(id)
    if (held === undefined || at >= held.at) state.set(id, { value: batch.values[i] ?? "", at })
  })
}

export const verify = async (contestant: Contestant, workload: Workload) => {
  // Rounds 0 and 1, 2 and 3, … arrive swapped; every fifth was collected with the one before.
  const agents = workload.agents / 10
  const reports = makeReports({ agents, rounds: 6_000 / agents }, (round) =>
    round % 5 === 4 ? (round - 1) * 1_000 : (round ^ 1) * 1_000
  )
  const expected = new Map<string, Held>()
  foldInto(expected, columns(reports))

  const stored = new Map<string, Held>()
  let inFlight = 0
  let writesAtOnce = 0
  let writes = 0
  const store: Sink = async (batch) => {
    assert.equal(new Set([batch.keys, batch.values, batch.errors].map((column) => column.length)).size, 1)
    if (contestant.deduped !== "no") {
      const ids = batch.keys.map((key, i) => `${batch.agentIds[i]}/${key}`)
      assert.equal(new Set(ids).size, ids.length, `${contestant.name} wrote a key twice in one batch`)
    }
    writesAtOnce = Math.max(writesAtOnce, ++inFlight)
    await new Promise((resolve) => setTimeout(resolve, 1 + (writes++ % 3)))
    foldInto(stored, batch)
    inFlight--
  }
  const { close, produce } = await contestant.open(workload, store)
  await produce(reports, reports.length)
  assert.equal(inFlight, 0, `${contestant.name} was done before its writes were`)
  await close()
  assert.deepEqual(stored, expected, `${contestant.name} lost a newest value`)
  return { writesAtOnce, writes }
}
