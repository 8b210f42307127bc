/**
 * Whether a fact costs more when there are more agents: once in batches of 500
 * (W1 with more agents), once with every key pending at a store that does not
 * answer, so that the batcher's map holds all of them.
 */
import { fromAdapter } from "./contestant.ts"
import { race } from "./ingest.ts"
import { NewestWins } from "./newestWins.ts"
import * as ours from "./ours.ts"
import { limit } from "./peers.ts"
import type { Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { cpuTime, ratio, summarize } from "./statistics.ts"
import { factsPerReport, makeReports, type Report, turn, w1 } from "./workload.ts"

const contestants = ["limit", "addUnsafe"] as const
const modes = ["flushed", "pending"] as const

interface Input {
  readonly contestant: (typeof contestants)[number]
  readonly mode: (typeof modes)[number]
  readonly agents: number
  readonly facts: number
}

/** Folds only: there is nothing to take, because the store holds on to what it got. */
const openPending = async ({ agents, contestant, facts }: Input) => {
  if (contestant === "limit") {
    const fold = new NewestWins()
    return (reports: ReadonlyArray<Report>, count: number) => {
      for (let i = 0; i < count; i++) fold.add(reports[i % reports.length] as Report)
    }
  }
  const workload = { ...w1, agents, facts }
  const stalled = new Promise<void>(() => {})
  const { batcher, isDrained } = await ours.open(workload, () => stalled, {
    maxPending: agents * factsPerReport + 2 * w1.batchSize
  })
  const { produce } = fromAdapter({
    add: ({ agentId, facts }) => {
      if (batcher.addUnsafe(agentId, facts) !== facts.length) throw new Error("facts were dropped")
    },
    hasRoom: isDrained,
    drain: async () => {
      while (!isDrained()) await turn()
    }
  })
  return produce
}

export const sample = async (input: Input): Promise<number> => {
  const { agents, contestant, facts, mode } = input
  if (mode === "flushed") {
    const workload = { ...w1, agents, facts, rounds: Math.max(1, 4_000 / agents), shareFacts: true }
    const raced = await race([contestant === "limit" ? limit : ours.addUnsafe], workload, true)
    return raced[contestant]?.nsPerFact ?? Number.NaN
  }
  const reports = makeReports({ agents, rounds: Math.max(1, 4_000 / agents), shareFacts: true })
  const produce = await openPending(input)
  const count = facts / factsPerReport
  await produce(reports, Math.max(count / 4, agents))
  const passes: Array<number> = []
  for (let pass = 0; pass < 3; pass++) {
    globalThis.gc?.()
    passes.push((await cpuTime(() => produce(reports, count))) / facts)
  }
  return Math.min(...passes)
}

const nameOf = ({ agents, contestant, mode }: Omit<Input, "facts">) => `${contestant}/${mode}/${agents}`

export const growth = async (settings: {
  readonly quick: boolean
  readonly rounds: number
}): Promise<Row> => {
  const facts = settings.quick ? 100_000 : 1_000_000
  const sizes = settings.quick ? [100, 10_000] : [100, 10_000, 100_000]
  const inputs = modes.flatMap((mode) =>
    contestants.flatMap((contestant) =>
      sizes.map(
        (agents): Input => ({ contestant, mode, agents, facts: Math.max(facts, agents * factsPerReport) })
      )
    )
  )
  const samples = await sampleRounds<number>(
    import.meta.filename,
    Object.fromEntries(inputs.map((input) => [nameOf(input), input])),
    settings.rounds
  )
  const of = (input: Omit<Input, "facts">) => samples[nameOf(input)] ?? []
  const overLimit = (mode: Input["mode"], agents: number) =>
    ratio(of({ contestant: "addUnsafe", mode, agents }), of({ contestant: "limit", mode, agents })).samples
  const [fewest = 0] = sizes
  const most = sizes.at(-1) ?? 0
  const labels = { flushed: "batches of 500", pending: "every key pending" }
  return {
    row: "growth",
    title: `Growth: from ${fewest} to ${most.toLocaleString("en-US")} agents of 10 facts each`,
    measured: inputs.map((input) => ({
      name: nameOf(input),
      label: `${input.contestant === "limit" ? "bare loop" : "addUnsafe"}, ${input.agents.toLocaleString("en-US")} agents, ${labels[input.mode]}`,
      unit: "ns/fact",
      value: summarize(of(input))
    })),
    targets: modes.map((mode) => ({
      what: `growth of addUnsafe over that of the bare loop, ${labels[mode]}`,
      value: ratio(overLimit(mode, most), overLimit(mode, fewest)),
      target: { atMost: 1.5 }
    }))
  }
}
