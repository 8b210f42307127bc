/**
 * The server's own counters as six small charts.
 *
 * @since 0.1.0
 */
import * as Chart from "./Chart.ts"
import type { Account, Pulse, Reason } from "./Wire.ts"

const reasons: ReadonlyArray<Reason> = ["capacity", "scheduled", "manual", "shutdown"]

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 })

/** At most five characters up to a billion. */
const count = (value: number): string => (value < 10_000 ? whole : compact).format(value)

const millis = (value: number): string => (value < 10 ? value.toFixed(1) : whole.format(value))

const share = (part: number, all: number): string =>
  all === 0 ? "0 %" : `${Math.round((part / all) * 100)} %`

type Pair = readonly [before: Pulse, after: Pulse]

const seconds = ([before, after]: Pair): number => (after.at - before.at) / 1_000

/** A counter that went back belongs to a server that was started anew. */
const grown = (before: number, after: number): number => (after < before ? after : after - before)

const perSecond = (pair: Pair, of: (account: Account) => number): number =>
  grown(of(pair[0].metadata), of(pair[1].metadata)) / seconds(pair)

const given = (account: Account): number => account.offered
const lost = (account: Account): number => account.dropped + account.discarded

const meanSize = ([before, after]: Pair, reason: Reason): number | null => {
  const batches = grown(before.batches[reason].count, after.batches[reason].count)
  return batches === 0 ? null : grown(before.batches[reason].rows, after.batches[reason].rows) / batches
}

/** A chart, and what it shows of the pulses. `recent` spans the last ten seconds: a batch is written every five. */
interface View {
  readonly chart: Chart.Chart
  readonly data: (pairs: ReadonlyArray<Pair>, recent: Pair, newest: Pulse) => Omit<Chart.Data, "times">
}

const one = (pairs: ReadonlyArray<Pair>, name: string, value: (pair: Pair) => number | null) => [
  { name, values: pairs.map(value) }
]

const views = (): ReadonlyArray<View> => [
  {
    chart: Chart.make({ title: "Facts in", unit: "/s", format: count, atLeast: 10 }),
    data: (pairs, recent, { metadata }) => ({
      series: one(pairs, "in", (pair) => perSecond(pair, given)),
      headline: count(perSecond(recent, given)),
      note: `${count(metadata.offered)} since start`
    })
  },
  {
    chart: Chart.make({ title: "Rows out", unit: "/s", format: count, atLeast: 10 }),
    data: (pairs, recent, { metadata }) => ({
      series: one(pairs, "out", (pair) => perSecond(pair, (account) => account.written)),
      headline: count(perSecond(recent, (account) => account.written)),
      note: `${share(metadata.superseded + metadata.unchanged, metadata.offered)} needed no write`
    })
  },
  {
    chart: Chart.make({ title: "Batch size", unit: "rows", format: count, atLeast: 10 }),
    data: (pairs, recent) => {
      const used = reasons.filter((reason) => pairs.some((pair) => meanSize(pair, reason) !== null))
      const rows = used.map((reason) => grown(recent[0].batches[reason].rows, recent[1].batches[reason].rows))
      const batches = used.map((reason) =>
        grown(recent[0].batches[reason].count, recent[1].batches[reason].count)
      )
      const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((a, b) => a + b, 0)
      return {
        series: used.map((name) => ({ name, values: pairs.map((pair) => meanSize(pair, name)) })),
        headline: sum(batches) === 0 ? "–" : count(sum(rows) / sum(batches)),
        note: used.join(" · ")
      }
    }
  },
  {
    chart: Chart.make({ title: "Dropped", unit: "/s", format: count, atLeast: 1 }),
    data: (pairs, recent, { metadata }) => ({
      series: one(pairs, "dropped", (pair) => perSecond(pair, lost)),
      headline: count(perSecond(recent, lost)),
      note: `${count(lost(metadata))} since start · ${count(metadata.refused)} refused`
    })
  },
  {
    chart: Chart.make({ title: "Waiting", unit: "facts", format: count, atLeast: 10 }),
    data: (pairs, _, { metadata, maxPending }) => ({
      series: one(
        pairs,
        "waiting",
        ([, { metadata }]) => metadata.queued + metadata.pending + metadata.inFlight
      ),
      headline: count(metadata.queued + metadata.pending + metadata.inFlight),
      note: `room for ${count(maxPending)}`
    })
  },
  {
    chart: Chart.make({ title: "Write latency", unit: "ms", format: millis, atLeast: 1 }),
    data: (pairs, _, { writeMs }) => ({
      series: one(pairs, "latency", ([, { writeMs }]) => writeMs.p50),
      headline: writeMs.p50 === null ? "–" : millis(writeMs.p50),
      note: writeMs.p95 === null ? "no write lately" : `95 % within ${millis(writeMs.p95)} ms`
    })
  }
]

export interface Traffic {
  readonly history: (pulses: ReadonlyArray<Pulse>) => void
  readonly pulse: (pulse: Pulse) => void
}

/** Draws the charts into an element. */
export const make = (element: HTMLElement): Traffic => {
  const drawn = views()
  element.append(...drawn.map(({ chart }) => chart.element))
  let pulses: ReadonlyArray<Pulse> = []

  const draw = () => {
    const newest = pulses.at(-1)
    if (newest === undefined) return
    const pairs = pulses.slice(1).map((after, index): Pair => [pulses[index] ?? after, after])
    const earlier = pulses.findLast(({ at }) => at <= newest.at - 10_000) ?? pulses[0]
    if (earlier === undefined || earlier === newest) return
    const times = pairs.map(([, { at }]) => at)
    for (const { chart, data } of drawn) chart.draw({ times, ...data(pairs, [earlier, newest], newest) })
  }

  return {
    history: (all) => {
      pulses = all
      draw()
    },
    pulse: (pulse) => {
      pulses = [...pulses.filter(({ at }) => at >= pulse.at - Chart.span && at < pulse.at), pulse]
      draw()
    }
  }
}
