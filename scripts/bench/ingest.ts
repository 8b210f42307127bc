/**
 * W1 and W2: what a fact costs from `add` to a store that counts, for the
 * batcher, its peers and the limit.
 *
 * The cost is CPU time, of all threads, so that garbage collection counts and
 * waiting for other processes does not. None of them waits for anything else.
 */
import type { Contestant } from "./contestant.ts"
import * as ours from "./ours.ts"
import { limit, peers } from "./peers.ts"
import type { Measured, Row, Target } from "./report.ts"
import { sampleIn, sampleRounds } from "./sample.ts"
import { cpuTime, ratio, summarize } from "./statistics.ts"
import { verify } from "./verify.ts"
import { factsPerReport, makeReports, type Workload, w1, w2 } from "./workload.ts"

export const contestants: ReadonlyArray<Contestant> = [limit, ours.addUnsafe, ours.add, ...peers]

export interface Input {
  readonly contestant: string
  readonly workload: Workload
  readonly verify?: boolean | undefined
}

interface Sample {
  readonly nsPerFact: number
  readonly rowsPerFact: number
  readonly writes: number
}

const find = (name: string): Contestant => {
  const found = contestants.find((contestant) => contestant.name === name)
  if (found === undefined) throw new Error(`no contestant is called ${name}`)
  return found
}

export const sample = async (input: Input) => {
  const contestant = find(input.contestant)
  return input.verify ? verify(contestant, input.workload) : time(contestant, input.workload)
}

/** The best of several passes: what else the machine does only ever adds time. */
export const time = async (contestant: Contestant, full: Workload): Promise<Sample> => {
  const facts = Math.min(full.facts, contestant.maxFacts ?? Number.POSITIVE_INFINITY)
  const workload = { ...full, facts }
  const reports = makeReports(workload)
  const count = facts / factsPerReport
  let rows = 0
  let writes = 0
  const pass = async (count: number): Promise<Sample> => {
    const { close, produce } = await contestant.open(workload, (batch) => {
      rows += batch.keys.length
      writes++
    })
    rows = 0
    writes = 0
    globalThis.gc?.()
    const ns = await cpuTime(() => produce(reports, count))
    await close()
    return { nsPerFact: ns / facts, rowsPerFact: rows / facts, writes }
  }

  await pass(count / 4)
  let best = await pass(count)
  // At least three passes; short ones are repeated until they have been compiled for good.
  const end = performance.now() + 1_000
  for (let passes = 1; passes < 3 || (passes < 10 && performance.now() < end); passes++) {
    const other = await pass(count)
    if (other.nsPerFact < best.nsPerFact) best = other
  }
  return best
}

const targetsOf = { w1: { addUnsafe: 2, add: 2.5 }, w2: { addUnsafe: 4, add: 5 } }

export const ingest = async (
  row: "w1" | "w2",
  { quick, rounds }: { readonly quick: boolean; readonly rounds: number }
): Promise<Row> => {
  const full = row === "w1" ? w1 : w2
  const workload = quick ? { ...full, facts: 200_000 } : full
  const inputs = Object.fromEntries(
    contestants.map(({ name }) => [name, { contestant: name, workload } satisfies Input])
  )

  const verified: Record<string, Awaited<ReturnType<typeof verify>>> = {}
  for (const [name, input] of Object.entries(inputs)) {
    verified[name] = await sampleIn(import.meta.filename, { ...input, verify: true })
  }
  const samples = await sampleRounds<Sample>(import.meta.filename, inputs, rounds)

  const ns = (name: string) => (samples[name] ?? []).map(({ nsPerFact }) => nsPerFact)
  const measured = contestants.map(({ bounded, deduped, label, name, timed }): Measured => {
    const rowsPerFact = summarize((samples[name] ?? []).map((sample) => sample.rowsPerFact)).median
    return {
      name,
      label,
      unit: "ns/fact",
      value: summarize(ns(name)),
      notes: {
        bounded: bounded ? "yes" : "no",
        deduped,
        timed,
        "writes at once": String(verified[name]?.writesAtOnce),
        "rows per 1,000 facts": (rowsPerFact * 1_000).toFixed(1)
      }
    }
  })
  const over = (name: string) => ratio(ns("addUnsafe"), ns(name))
  const isSameJob = (peer: Contestant) =>
    peer.bounded && peer.deduped === "in the buffer" && peer.timed === "yes"
  return {
    row,
    title:
      row === "w1"
        ? "W1: 2,000 agents × 10 facts, batches of 500, into a store that counts"
        : "W2: 40 agents × 10 facts, flushed every 50 ms, into a store that counts",
    measured,
    targets: [
      ...(["addUnsafe", "add"] as const).map(
        (name): Target => ({
          what: `${name} over the bare loop`,
          value: ratio(ns(name), ns("limit")),
          target: { atMost: targetsOf[row][name] }
        })
      ),
      ...peers.filter(isSameJob).map((peer) => ({
        what: `addUnsafe over ${peer.label}`,
        value: over(peer.name),
        target: { atMost: 0.5 }
      }))
    ],
    ratios: peers
      .filter((peer) => !isSameJob(peer))
      .map((peer) => ({ what: `addUnsafe over ${peer.label}`, value: over(peer.name) }))
  }
}
