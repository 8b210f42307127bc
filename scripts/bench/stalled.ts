/**
 * A store that never answers, while 100,000 distinct keys are offered over and
 * over at full speed: what that costs in memory, and whether `add` slows down.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import type { AgentId } from "../../src/AgentId.ts"
import { load } from "./library.ts"
import { noByteBound, using } from "./ours.ts"
import { newOverOld, type Row } from "./report.ts"
import { sampleIn, sampleRounds } from "./sample.ts"
import { ratio, summarize } from "./statistics.ts"
import { agentIds, epoch, factsPerReport, reportOf, stride, turn, w1 } from "./workload.ts"

const agents = 10_000
const keys = agents * factsPerReport

/** What a pending key may hold of the heap, its fact included. */
const maxHeapPerKey = 256

/** The same in resident memory at the peak, where V8's room for garbage at this rate is most of it. */
const maxRssPerKey = 4_096

interface Second {
  /** Median nanoseconds of an `addUnsafe` of ten facts. */
  readonly nsPerAdd: number
  /** Nanoseconds per fact from `add` to being folded into what is pending. */
  readonly nsPerFact: number
  readonly rss: number
}

interface Sample {
  readonly seconds: ReadonlyArray<Second>
  readonly rssBefore: number
  readonly rssPeak: number
  readonly rssAfter: number
  /** Live heap with everything pending, less that before. */
  readonly heap: number
  readonly offered: number
}

const heapUsed = () => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

interface Input {
  readonly seconds: number
  /** Sources of the revision; the working tree's by default. */
  readonly sources?: string | undefined
}

export const sample = async ({ seconds: duration, sources }: Input): Promise<Sample> => {
  const ids = agentIds(agents)
  const { batcher, close, isDrained } = await using(await load(sources)).open(
    w1,
    () => new Promise(() => {}),
    {
      ...noByteBound,
      // A key in flight may be pending again.
      maxPending: keys + w1.batchSize,
      shutdownTimeout: "1 second"
    }
  )
  const account = () => Effect.runSync(batcher.accounting)
  const heapBefore = heapUsed()
  const rssBefore = process.memoryUsage.rss()
  let rssPeak = 0

  const seconds: Array<Second> = []
  let round = 0
  let next = 0
  for (let second = 0; second < duration; second++) {
    const end = performance.now() + 1_000
    const adds: Array<number> = []
    const facts: Array<number> = []
    while (performance.now() < end) {
      const now = Date.now() - epoch
      const reports = Array.from({ length: stride }, () => {
        const report = reportOf(ids[next] as AgentId, round, now)
        next = (next + 1) % agents
        if (next === 0) round++
        return report
      })
      const start = performance.now()
      for (const report of reports) {
        if (batcher.addUnsafe(report.agentId, report.facts) !== factsPerReport)
          throw new Error("facts were dropped")
      }
      adds.push(((performance.now() - start) * 1e6) / stride)
      do await turn()
      while (!isDrained())
      facts.push(((performance.now() - start) * 1e6) / stride / factsPerReport)
      rssPeak = Math.max(rssPeak, process.memoryUsage.rss())
    }
    seconds.push({
      nsPerAdd: summarize(adds).median,
      nsPerFact: summarize(facts).median,
      rss: process.memoryUsage.rss()
    })
  }

  const { inFlight, offered, pending, superseded, ...rest } = account()
  for (const [place, count] of Object.entries(rest)) assert.equal(count, 0, `${count} facts ${place}`)
  assert.equal(offered, superseded + pending + inFlight)
  assert.ok(pending + inFlight >= Math.min(keys, offered))
  const heap = heapUsed() - heapBefore
  await close()
  const end = account()
  assert.equal(end.offered, end.superseded + end.discarded + end.dropped)
  globalThis.gc?.()
  return { seconds, rssBefore, rssPeak, rssAfter: process.memoryUsage.rss(), heap, offered }
}

/** Seconds of which the first compiles and fills the map. */
const againstSeconds = 6

export const stalledAgainst = async (
  against: string,
  settings: { readonly rounds: number; readonly seconds: number }
): Promise<Row> => {
  const seconds = Math.min(settings.seconds, againstSeconds)
  const { before = [], now = [] } = await sampleRounds<Sample>(
    import.meta.filename,
    { now: { seconds }, before: { seconds, sources: against } satisfies Input },
    settings.rounds
  )
  const heapPerKey = ({ heap }: Sample) => heap / keys
  const median = (of: (second: Second) => number) => (sampled: Sample) =>
    summarize(sampled.seconds.slice(1).map(of)).median
  const pair = (label: string, unit: string, of: (sampled: Sample) => number) => ({
    label,
    unit,
    now: now.map(of),
    before: before.map(of)
  })
  return newOverOld({
    row: "stalled",
    title: `A store that never answers: 100,000 keys offered over and over for ${seconds} s`,
    unit: "",
    pairs: [
      pair("live heap per pending key", "bytes", heapPerKey),
      pair("RSS at its peak", "MiB", ({ rssPeak }) => rssPeak / 2 ** 20),
      pair(
        "addUnsafe",
        "ns",
        median((second) => second.nsPerAdd)
      ),
      pair(
        "from add to pending",
        "ns/fact",
        median((second) => second.nsPerFact)
      )
    ]
  })
}

export const stalled = async (settings: { readonly seconds: number }): Promise<Row> => {
  const { heap, offered, rssAfter, rssBefore, rssPeak, seconds } = await sampleIn<Sample>(
    import.meta.filename,
    settings
  )
  const mebibytes = (bytes: number) => summarize([bytes / 2 ** 20])
  // The first second compiles and fills the map.
  const window = Math.min(7, Math.floor((seconds.length - 1) / 2))
  const first = seconds.slice(1, 1 + window)
  const last = seconds.slice(-window)
  const slowdown = (of: (second: Second) => number) => ratio(last.map(of), first.map(of))
  return {
    row: "stalled",
    title: `A store that never answers: 100,000 keys offered over and over for ${settings.seconds} s`,
    measured: [
      { name: "offered", label: "facts offered", unit: "", value: summarize([offered]) },
      { name: "rssBefore", label: "RSS before", unit: "MiB", value: mebibytes(rssBefore) },
      { name: "rssPeak", label: "RSS at its peak", unit: "MiB", value: mebibytes(rssPeak) },
      { name: "rssAfter", label: "RSS after the close", unit: "MiB", value: mebibytes(rssAfter) },
      {
        name: "heapPerKey",
        label: "live heap per pending key",
        unit: "bytes",
        value: summarize([heap / keys])
      },
      {
        name: "addFirst",
        label: `addUnsafe, first ${window} s`,
        unit: "ns",
        value: summarize(first.map((second) => second.nsPerAdd))
      },
      {
        name: "addLast",
        label: `addUnsafe, last ${window} s`,
        unit: "ns",
        value: summarize(last.map((second) => second.nsPerAdd))
      },
      {
        name: "factFirst",
        label: `from add to pending, first ${window} s`,
        unit: "ns/fact",
        value: summarize(first.map((second) => second.nsPerFact))
      },
      {
        name: "factLast",
        label: `from add to pending, last ${window} s`,
        unit: "ns/fact",
        value: summarize(last.map((second) => second.nsPerFact))
      }
    ],
    targets: [
      {
        what: "bytes of live heap per pending key",
        value: summarize([heap / keys]),
        target: { atMost: maxHeapPerKey }
      },
      {
        what: "bytes of RSS per pending key, peak less before",
        value: summarize([(rssPeak - rssBefore) / keys]),
        target: { atMost: maxRssPerKey }
      },
      {
        what: "RSS at the end over the middle",
        value: ratio(
          [Math.max(...last.map((second) => second.rss))],
          [Math.max(...seconds.slice(0, -window).map((second) => second.rss))]
        ),
        target: { atMost: 1.1 }
      },
      {
        what: "addUnsafe, last seconds over first",
        value: slowdown((second) => second.nsPerAdd),
        target: { atMost: 2 }
      },
      {
        what: "from add to pending, last seconds over first",
        value: slowdown((second) => second.nsPerFact),
        target: { atMost: 2 }
      }
    ]
  }
}
