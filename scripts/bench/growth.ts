/**
 * Whether a fact costs more when there are more agents: once in batches of 500
 * (W1 with more agents), once with every key pending at a store that does not
 * answer, so that the batcher's map holds all of them.
 */
import { fromAdapter } from "./contestant.ts"
import { race } from "./ingest.ts"
import { load } from "./library.ts"
import { NewestWins } from "./newestWins.ts"
import { noByteBound, using } from "./ours.ts"
import { limit } from "./peers.ts"
import { newOverOld, type Row } from "./report.ts"
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
  /** Sources of the revision; the working tree's by default. */
  readonly sources?: string | undefined
}

/** Folds only: there is nothing to take, because the store holds on to what it got. */
const openPending = async ({ agents, contestant, facts, sources }: Input) => {
  if (contestant === "limit") {
    const fold = new NewestWins()
    return (reports: ReadonlyArray<Report>, count: number) => {
      for (let i = 0; i < count; i++) fold.add(reports[i % reports.length] as Report)
    }
  }
  const workload = { ...w1, agents, facts }
  const stalled = new Promise<void>(() => {})
  const { batcher, isDrained } = await using(await load(sources)).open(workload, () => stalled, {
    ...noByteBound,
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
  const { agents, contestant, facts, mode, sources } = input
  if (mode === "flushed") {
    const workload = { ...w1, agents, facts, rounds: Math.max(1, 4_000 / agents), shareFacts: true }
    const { addUnsafe } = using(await load(sources))
    const raced = await race([contestant === "limit" ? limit : addUnsafe], workload, true)
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

const nameOf = ({ agents, contestant, mode, sources }: Omit<Input, "facts">) =>
  [contestant, mode, agents, ...(sources === undefined ? [] : ["before"])].join("/")

interface Settings {
  readonly quick: boolean
  readonly rounds: number
}

const inputsOf = ({ quick }: Settings, revisions: ReadonlyArray<Pick<Input, "contestant" | "sources">>) => {
  const facts = quick ? 100_000 : 1_000_000
  const sizes = quick ? [100, 10_000] : [100, 10_000, 100_000]
  const inputs = modes.flatMap((mode) =>
    revisions.flatMap((revision) =>
      sizes.map(
        (agents): Input => ({ ...revision, mode, agents, facts: Math.max(facts, agents * factsPerReport) })
      )
    )
  )
  return { inputs, sizes }
}

const labels = { flushed: "batches of 500", pending: "every key pending" }

const titleOf = (sizes: ReadonlyArray<number>) =>
  `Growth: from ${sizes[0]} to ${sizes.at(-1)?.toLocaleString("en-US")} agents of 10 facts each`

export const growthAgainst = async (against: string, settings: Settings): Promise<Row> => {
  const { inputs, sizes } = inputsOf(settings, [
    { contestant: "addUnsafe" },
    { contestant: "addUnsafe", sources: against }
  ])
  const samples = await sampleRounds<number>(
    import.meta.filename,
    Object.fromEntries(inputs.map((input) => [nameOf(input), input])),
    settings.rounds
  )
  return newOverOld({
    row: "growth",
    title: titleOf(sizes),
    unit: "ns/fact",
    pairs: inputs
      .filter(({ sources }) => sources === undefined)
      .map((input) => ({
        label: `${input.agents.toLocaleString("en-US")} agents, ${labels[input.mode]}`,
        now: samples[nameOf(input)] ?? [],
        before: samples[nameOf({ ...input, sources: against })] ?? []
      }))
  })
}

export const growth = async (settings: Settings): Promise<Row> => {
  const { inputs, sizes } = inputsOf(
    settings,
    contestants.map((contestant) => ({ contestant }))
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
  return {
    row: "growth",
    title: titleOf(sizes),
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
