/**
 * What one `add` of ten facts costs its caller, against offering one message to
 * the same kind of queue.
 *
 * All are timed in one process, in blocks that take turns. Before each block
 * the batcher takes in, folds and writes as many reports, untimed: whichever is
 * timed finds the caches as a busy application leaves them.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { load } from "./library.ts"
import { using } from "./ours.ts"
import { newOverOld, type Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { ratio, summarize } from "./statistics.ts"
import { capacity, factsPerReport, makeReports, type Report, reportAt, turn, w1 } from "./workload.ts"

/** Few enough that no fiber gives way to another within them. */
const addsPerBlock = 100

const labels = {
  offerUnsafe: "Queue.offerUnsafe",
  addUnsafe: "addUnsafe",
  offer: "yield* Effect.sync(() => Queue.offerUnsafe(…))",
  add: "yield* add"
}
type Name = keyof typeof labels
const names = Object.keys(labels) as ReadonlyArray<Name>

interface Input {
  readonly blocks: number
  /** Sources of another revision, whose `add` and `addUnsafe` are timed as well. */
  readonly against?: string | undefined
}

/** Nanoseconds per call, the median of the blocks. */
type Sample = Readonly<Record<string, number>>

const before = (name: string) => `${name} before`

const openQueue = Effect.gen(function* () {
  const queue = yield* Queue.dropping<Report>(capacity / factsPerReport)
  yield* Effect.forkDetach(Effect.forever(Queue.takeAll(queue)))
  return queue
})

// An application adds what it has just decoded: looking at each report brings it into the cache, for all alike.
const justDecoded = (next: () => Report): ReadonlyArray<Report> => {
  const block = Array.from({ length: addsPerBlock }, next)
  if (block.some(({ agentId, facts }) => facts.length * agentId.length === 0)) {
    throw new Error("an empty report")
  }
  return block
}

/** Milliseconds that a block of calls takes. */
type Run = (next: () => Report) => number | Promise<number>

const timed =
  (add: (report: Report) => void): Run =>
  (next) => {
    const block = justDecoded(next)
    const start = performance.now()
    for (let i = 0; i < addsPerBlock; i++) add(block[i] as Report)
    return performance.now() - start
  }

const timedEffect =
  (add: (report: Report) => Effect.Effect<unknown>): Run =>
  (next) =>
    Effect.runPromise(
      Effect.gen(function* () {
        const block = justDecoded(next)
        const start = performance.now()
        for (let i = 0; i < addsPerBlock; i++) yield* add(block[i] as Report)
        return performance.now() - start
      })
    )

const openBatcher = async (sources?: string) => {
  const { batcher, close, isDrained } = await using(await load(sources)).open(w1, () => {})
  return {
    addUnsafe: timed(({ agentId, facts }) => batcher.addUnsafe(agentId, facts)),
    add: timedEffect(({ agentId, facts }) => batcher.add(agentId, facts)),
    isDrained,
    close: async () => {
      const { dropped } = await Effect.runPromise(batcher.accounting)
      if (dropped > 0) throw new Error("facts were dropped")
      await close()
    }
  }
}

export const sample = async ({ against, blocks }: Input): Promise<Sample> => {
  const reports = makeReports(w1)
  const queue = await Effect.runPromise(openQueue)
  const ours = await openBatcher()
  const theirs = against === undefined ? undefined : await openBatcher(against)
  const lanes: ReadonlyArray<{ readonly name: string; readonly run: Run; readonly warm: Run }> = [
    { name: "offerUnsafe", run: timed((report) => Queue.offerUnsafe(queue, report)), warm: ours.addUnsafe },
    { name: "addUnsafe", run: ours.addUnsafe, warm: ours.addUnsafe },
    {
      name: "offer",
      run: timedEffect((report) => Effect.sync(() => Queue.offerUnsafe(queue, report))),
      warm: ours.addUnsafe
    },
    { name: "add", run: ours.add, warm: ours.addUnsafe },
    ...(theirs === undefined
      ? []
      : [
          { name: before("addUnsafe"), run: theirs.addUnsafe, warm: theirs.addUnsafe },
          { name: before("add"), run: theirs.add, warm: theirs.addUnsafe }
        ])
  ]
  const drain = async () => {
    do await turn()
    while (!ours.isDrained() || theirs?.isDrained() === false || Queue.sizeUnsafe(queue) > 0)
  }

  let given = 0
  const next = () => reportAt(reports, given++)
  const times: Record<string, Array<number>> = Object.fromEntries(lanes.map(({ name }) => [name, []]))
  for (let block = 0; block < blocks; block++) {
    for (const { name, run, warm } of lanes) {
      warm(next)
      await drain()
      const elapsed = await run(next)
      await drain()
      if (block >= blocks / 4) times[name]?.push((elapsed * 1e6) / addsPerBlock)
    }
  }
  await ours.close()
  await theirs?.close()
  return Object.fromEntries(Object.entries(times).map(([name, of]) => [name, summarize(of).median]))
}

interface Settings {
  readonly quick: boolean
  readonly rounds: number
}

const sampleAdds = async ({ quick, rounds }: Settings, against?: string) => {
  const input: Input = { blocks: quick ? 100 : 3_000, against }
  const { samples = [] } = await sampleRounds<Sample>(import.meta.filename, { samples: input }, rounds)
  return (name: string) => samples.map((sampled) => sampled[name] ?? Number.NaN)
}

const title = "add: a report of 10 facts, as its caller feels it"

export const addAgainst = async (against: string, settings: Settings): Promise<Row> => {
  const of = await sampleAdds(settings, against)
  return newOverOld({
    row: "add",
    title,
    unit: "ns",
    pairs: (["addUnsafe", "add"] as const).map((name) => ({
      label: labels[name],
      now: of(name),
      before: of(before(name))
    }))
  })
}

export const add = async (settings: Settings): Promise<Row> => {
  const of = await sampleAdds(settings)
  return {
    row: "add",
    title,
    measured: names.map((name) => ({ name, label: labels[name], unit: "ns", value: summarize(of(name)) })),
    targets: [
      {
        what: `addUnsafe over ${labels.offerUnsafe}`,
        value: ratio(of("addUnsafe"), of("offerUnsafe")),
        target: { atMost: 3 }
      },
      {
        what: `yield* add over ${labels.offer}`,
        value: ratio(of("add"), of("offer")),
        target: { atMost: 2 }
      }
    ]
  }
}
