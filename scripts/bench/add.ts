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
import * as ours from "./ours.ts"
import type { Row } from "./report.ts"
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

/** Nanoseconds per call, the median of the blocks. */
type Sample = Readonly<Record<Name, number>>

const openQueue = Effect.gen(function* () {
  const queue = yield* Queue.dropping<Report>(capacity / factsPerReport)
  yield* Effect.forkDetach(Effect.forever(Queue.takeAll(queue)))
  return queue
})

export const sample = async ({ blocks }: { readonly blocks: number }): Promise<Sample> => {
  const reports = makeReports(w1)
  const queue = await Effect.runPromise(openQueue)
  const { batcher, close, isDrained } = await ours.open(w1, () => {})
  let next = 0

  // An application adds what it has just decoded: looking at each report brings it into the cache, for all alike.
  const justDecoded = (): ReadonlyArray<Report> => {
    const block = Array.from({ length: addsPerBlock }, () => reportAt(reports, next++))
    if (block.some(({ agentId, facts }) => facts.length * agentId.length === 0))
      throw new Error("an empty report")
    return block
  }
  const timed = (add: (report: Report) => void) => (): number => {
    const block = justDecoded()
    const start = performance.now()
    for (let i = 0; i < addsPerBlock; i++) add(block[i] as Report)
    return performance.now() - start
  }
  const timedEffect = (add: (report: Report) => Effect.Effect<unknown>) => (): Promise<number> =>
    Effect.runPromise(
      Effect.gen(function* () {
        const block = justDecoded()
        const start = performance.now()
        for (let i = 0; i < addsPerBlock; i++) yield* add(block[i] as Report)
        return performance.now() - start
      })
    )
  const run: Readonly<Record<Name, () => number | Promise<number>>> = {
    offerUnsafe: timed((report) => Queue.offerUnsafe(queue, report)),
    addUnsafe: timed(({ agentId, facts }) => batcher.addUnsafe(agentId, facts)),
    offer: timedEffect((report) => Effect.sync(() => Queue.offerUnsafe(queue, report))),
    add: timedEffect(({ agentId, facts }) => batcher.add(agentId, facts))
  }
  const drain = async () => {
    do await turn()
    while (!isDrained() || Queue.sizeUnsafe(queue) > 0)
  }

  const times: Record<Name, Array<number>> = { offerUnsafe: [], addUnsafe: [], offer: [], add: [] }
  for (let block = 0; block < blocks; block++) {
    for (const name of names) {
      run.addUnsafe()
      await drain()
      const elapsed = await run[name]()
      await drain()
      if (block >= blocks / 4) times[name].push((elapsed * 1e6) / addsPerBlock)
    }
  }
  const { dropped } = await Effect.runPromise(batcher.accounting)
  if (dropped > 0) throw new Error("facts were dropped")
  await close()
  return {
    offerUnsafe: summarize(times.offerUnsafe).median,
    addUnsafe: summarize(times.addUnsafe).median,
    offer: summarize(times.offer).median,
    add: summarize(times.add).median
  }
}

export const add = async (settings: { readonly quick: boolean; readonly rounds: number }): Promise<Row> => {
  const blocks = settings.quick ? 500 : 3_000
  const { samples = [] } = await sampleRounds<Sample>(
    import.meta.filename,
    { samples: { blocks } },
    settings.rounds
  )
  const of = (name: Name) => samples.map((sampled) => sampled[name])
  return {
    row: "add",
    title: "add: a report of 10 facts, as its caller feels it",
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
