/**
 * W1 and W2: what a fact costs from `add` to a store that counts, for the
 * batcher, its peers and the limit.
 *
 * The cost is CPU time, of all threads, so that garbage collection counts and
 * waiting for other processes does not. None of them waits for anything else.
 */
import type { Contestant } from "./contestant.ts"
import { load } from "./library.ts"
import { using, workingTree } from "./ours.ts"
import { limit, limitInEffect, peers } from "./peers.ts"
import { type Measured, newOverOld, type Row, type Target } from "./report.ts"
import { sampleIn, sampleRounds } from "./sample.ts"
import { cpuTime, ratio, summarize } from "./statistics.ts"
import { verify } from "./verify.ts"
import { factsPerReport, makeReports, type Workload, w1, w2 } from "./workload.ts"

export const contestants: ReadonlyArray<Contestant> = [
  limit,
  limitInEffect,
  workingTree.addUnsafe,
  workingTree.add,
  ...peers
]

export interface Input {
  readonly contestants: ReadonlyArray<string>
  /** Sources of another revision, whose batcher takes its turns beside the working tree's. */
  readonly against?: string | undefined
  readonly workload: Workload
  readonly staysOpen?: boolean | undefined
  readonly verify?: boolean | undefined
}

interface Sample {
  readonly nsPerFact: number
  readonly rowsPerFact: number
}

type Samples = Readonly<Record<string, Sample>>

const find = (name: string): Contestant => {
  const found = contestants.find((contestant) => contestant.name === name)
  if (found === undefined) throw new Error(`no contestant is called ${name}`)
  return found
}

const old = (name: string) => `${name} before`

/** The batcher of another revision, by names of its own. */
const contestantsOf = async (sources: string): Promise<ReadonlyArray<Contestant>> => {
  const { add, addUnsafe } = using(await load(sources))
  return [addUnsafe, add].map((contestant) => ({ ...contestant, name: old(contestant.name) }))
}

export const sample = async (input: Input): Promise<unknown> => {
  const racing = [
    ...input.contestants.map(find),
    ...(input.against === undefined ? [] : await contestantsOf(input.against))
  ]
  const [first] = racing
  return input.verify && first !== undefined
    ? verify(first, input.workload)
    : race(racing, input.workload, input.staysOpen ?? false)
}

/** Passes before anything is measured, and measured ones. */
const warmUps = 8
const passes = 11

/**
 * Lets contestants take turns in one process, pass by pass. A pass takes a tenth
 * of a second or so: whatever else the machine does meanwhile, it does to all.
 *
 * An instance that `staysOpen` serves all passes, as a service's does. Most
 * peers cannot be told to write what is left but by closing them: against these
 * every contestant is opened anew for each pass, and closed, untimed.
 */
export const race = async (
  racing: ReadonlyArray<Contestant>,
  workload: Workload,
  staysOpen: boolean
): Promise<Samples> => {
  const reports = makeReports(workload)
  const lanes = racing.map((contestant) => {
    const lane = { name: contestant.name, rows: 0, times: [] as Array<number> }
    const open = () =>
      contestant.open(workload, (batch) => {
        lane.rows += batch.keys.length
      })
    return Object.assign(lane, { open })
  })
  const kept = staysOpen ? await Promise.all(lanes.map(({ open }) => open())) : []
  for (let pass = 0; pass < warmUps + passes; pass++) {
    for (const [i, lane] of lanes.entries()) {
      const { close, produce } = kept[i] ?? (await lane.open())
      lane.rows = 0
      const ns = await cpuTime(() => produce(reports, workload.facts / factsPerReport))
      if (pass >= warmUps) lane.times.push(ns / workload.facts)
      if (!staysOpen) await close()
    }
  }
  await Promise.all(kept.map(({ close }) => close()))
  return Object.fromEntries(
    lanes.map(({ name, rows, times }) => [
      name,
      { nsPerFact: summarize(times).median, rowsPerFact: rows / workload.facts }
    ])
  )
}

const targetsOf = { w1: { addUnsafe: 1.6, add: 1.8 }, w2: { addUnsafe: 1.6, add: 2 } }

/** What the fastest peers may take of the same reports, less being more than they do for it. */
const peerTargets: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  w1: { groupedWithinMap: 1, otel: 1.275 },
  w2: {}
}

const titles = {
  w1: "W1: 2,000 agents × 10 facts, batches of 500, into a store that counts",
  w2: "W2: 40 agents × 10 facts, flushed every 50 ms, into a store that counts"
}

interface Settings {
  readonly quick: boolean
  readonly rounds: number
}

const workloadOf = (row: "w1" | "w2", { quick }: Settings): Workload => {
  const full = row === "w1" ? w1 : w2
  return quick ? { ...full, facts: 50_000 } : full
}

const withLimit = ["limit", "limitInEffect", "addUnsafe", "add"]

export const ingest = async (row: "w1" | "w2", settings: Settings): Promise<Row> => {
  const { rounds } = settings
  // What is raced against the limit is the workload as it is; against a peer, a part of it.
  const workload = workloadOf(row, settings)
  const races: Record<string, Input> = {
    limit: { contestants: withLimit, workload, staysOpen: true }
  }
  for (const { maxFacts = 100_000, name } of peers) {
    races[name] = {
      contestants: ["addUnsafe", name],
      workload: { ...workload, facts: Math.min(100_000, maxFacts) }
    }
  }

  const verified: Record<string, Awaited<ReturnType<typeof verify>>> = {}
  for (const { name } of contestants) {
    verified[name] = await sampleIn(import.meta.filename, { contestants: [name], workload, verify: true })
  }
  const samples = await sampleRounds<Samples>(import.meta.filename, races, rounds)

  const raceOf = (name: string) => samples[withLimit.includes(name) ? "limit" : name] ?? []
  const ns = (name: string, of = name) => raceOf(name).map((sampled) => sampled[of]?.nsPerFact ?? Number.NaN)
  const measured = contestants.map(({ bounded, deduped, label, name, timed }): Measured => {
    const rowsPerFact = summarize(
      raceOf(name).map((sampled) => sampled[name]?.rowsPerFact ?? Number.NaN)
    ).median
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
  const over = (name: string) => ratio(ns(name, "addUnsafe"), ns(name))
  const overPeers = peers.map((peer) => {
    const isSameJob = peer.bounded && peer.deduped === "in the buffer" && peer.timed === "yes"
    return {
      what: `addUnsafe over ${peer.label}`,
      value: over(peer.name),
      atMost: peerTargets[row]?.[peer.name] ?? (isSameJob ? 0.5 : undefined)
    }
  })
  return {
    row,
    title: titles[row],
    measured,
    targets: [
      ...(["addUnsafe", "add"] as const).map(
        (name): Target => ({
          what: `${name} over the bare loop`,
          value: ratio(ns(name), ns("limit")),
          target: { atMost: targetsOf[row][name] }
        })
      ),
      ...overPeers.flatMap(
        ({ atMost, value, what }): ReadonlyArray<Target> =>
          atMost === undefined ? [] : [{ what, value, target: { atMost } }]
      )
    ],
    ratios: [
      { what: "add over the bare loop in effects", value: ratio(ns("add"), ns("limitInEffect")) },
      ...overPeers.filter(({ atMost }) => atMost === undefined)
    ]
  }
}

/** The same race with the batcher of another revision in it, without the peers. */
export const ingestAgainst = async (row: "w1" | "w2", against: string, settings: Settings): Promise<Row> => {
  const input: Input = {
    contestants: withLimit,
    workload: workloadOf(row, settings),
    staysOpen: true,
    against
  }
  const { race = [] } = await sampleRounds<Samples>(import.meta.filename, { race: input }, settings.rounds)
  const ns = (name: string) => race.map((sampled) => sampled[name]?.nsPerFact ?? Number.NaN)
  return newOverOld({
    row,
    title: titles[row],
    unit: "ns/fact",
    pairs: ["addUnsafe", "add"].map((name) => ({ label: name, now: ns(name), before: ns(old(name)) })),
    measured: ["addUnsafe", "add"].flatMap((name) =>
      [name, old(name)].map((each) => ({
        name: `${each}/limit`,
        label: `${each}, over the bare loop`,
        unit: "×",
        value: ratio(ns(each), ns("limit"))
      }))
    )
  })
}
