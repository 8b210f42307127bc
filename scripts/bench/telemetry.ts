/**
 * What traces cost: the same reports, each added within a span of its caller's,
 * with OpenTelemetry's tracer, over no tracer and no caller sampled; once with
 * one in ten flushes and callers sampled, once with all of them, and once with
 * the spans of each flush made by hand by a store of a batcher that is not
 * traced: what the SDK takes for these spans, whoever makes them. They take
 * turns in one process. Spans go through the batch processor to an exporter that
 * drops them.
 */
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  type SpanExporter,
  TraceIdRatioBasedSampler
} from "@opentelemetry/sdk-trace-base"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import { load } from "./library.ts"
import { produceWith, using, workingTree } from "./ours.ts"
import { newOverOld, type Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { cpuTime, ratio, summarize } from "./statistics.ts"
import { factsPerReport, makeReports, type Report, reportAt, type Workload, w1, w2 } from "./workload.ts"

const dropping: SpanExporter = {
  export: (_, done) => done({ code: 0 }),
  shutdown: async () => {}
}

/** OpenTelemetry's tracer with a share of the flushes sampled; its spans are dropped once they have been batched. */
export const layerTracer = (share: number) =>
  Layer.effect(Tracer.Tracer, OtelTracer.make).pipe(
    Layer.provide(
      Layer.sync(OtelTracer.OtelTracer, () =>
        new BasicTracerProvider({
          sampler: new TraceIdRatioBasedSampler(share),
          spanProcessors: [new BatchSpanProcessor(dropping)]
        }).getTracer("bench")
      )
    )
  )

/** The spans within which reports are added, a share of them sampled. */
export const callers = (count: number, share: number): ReadonlyArray<Tracer.AnySpan> =>
  Array.from({ length: count }, (_, i) =>
    Tracer.externalSpan({
      traceId: (i + 1).toString(16).padStart(32, "0"),
      spanId: (i + 1).toString(16).padStart(16, "0"),
      sampled: share > 0 && i % Math.round(1 / share) === 0
    })
  )

/** Adds a report within the i-th of the spans given over and over. */
export const addWithin = (
  batcher: MetadataBatcher.MetadataBatcher["Service"],
  { agentId, facts }: Report,
  spans: ReadonlyArray<Tracer.AnySpan>,
  i: number
) =>
  Effect.provideService(
    batcher.add(agentId, facts),
    Tracer.ParentSpan,
    spans[i % spans.length] as Tracer.AnySpan
  )

/** The spans of one flush of a workload, the flush itself first. */
const recordFlush = async (workload: Workload, reports: ReadonlyArray<Report>) => {
  const recorded: Array<Tracer.Span> = []
  const recording = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      recorded.push(span)
      return span
    }
  })
  const { layerPubsub, layerStore, openWith } = workingTree
  const layer = Layer.mergeAll(
    layerStore(() => {}),
    layerPubsub,
    Layer.succeed(Tracer.Tracer, recording)
  )
  const { batcher, close } = await openWith(layer, { interval: workload.interval })
  const spans = callers(reports.length, 1)
  const keys = Math.min(workload.agents * factsPerReport, workload.batchSize)
  await Effect.runPromise(
    produceWith(batcher, keys / factsPerReport, (i) => addWithin(batcher, reportAt(reports, i), spans, i))
  )
  await close()
  return recorded
}

/** Makes the spans of a recorded flush, with as many links to callers, a call. */
const byHand = (
  tracer: Tracer.Tracer,
  clock: Clock.Clock,
  recorded: ReadonlyArray<Tracer.Span>,
  spans: ReadonlyArray<Tracer.AnySpan>
) => {
  const [flush, ...steps] = recorded.map((span) => ({
    name: span.name,
    kind: span.kind,
    attributes: Array.from(span.attributes),
    links: span.links.length
  }))
  if (flush === undefined) throw new Error("no flush was recorded")
  let next = 0
  const begin = ({ attributes, kind, name }: typeof flush, parent: Tracer.Span | undefined): Tracer.Span => {
    const span = tracer.span({
      name,
      kind,
      parent: Option.fromUndefinedOr(parent),
      root: parent === undefined,
      annotations: Context.empty(),
      links: [],
      startTime: clock.currentTimeNanosUnsafe(),
      sampled: true
    })
    for (const [key, value] of attributes) span.attribute(key, value)
    return span
  }
  const end = (span: Tracer.Span) => span.end(clock.currentTimeNanosUnsafe(), Exit.void)
  return () => {
    const root = begin(flush, undefined)
    root.addLinks(
      Array.from({ length: flush.links }, () => ({
        span: spans[next++ % spans.length] as Tracer.AnySpan,
        attributes: {}
      }))
    )
    for (const step of steps) end(begin(step, root))
    end(root)
  }
}

const shares = { off: 0, tenth: 0.1, all: 1, byHand: 0 }
type Name = keyof typeof shares
const names = Object.keys(shares) as ReadonlyArray<Name>
const labels = {
  off: "no tracing",
  tenth: "one in ten sampled",
  all: "everything sampled",
  byHand: "no tracing, but the same spans made by hand"
}

const warmUps = 8
const passes = 12

interface Input {
  readonly workload: Workload
  /** Sources of another revision, whose batcher takes its turns beside the working tree's. */
  readonly against?: string | undefined
}

type Sample = Readonly<Record<string, number>>

const before = (name: Name) => `${name} before`

export const sample = async ({ against, workload }: Input): Promise<Sample> => {
  const reports = makeReports(workload)
  const recorded = await recordFlush(workload, reports)
  const makeSpans = await Effect.runPromise(
    Effect.provide(
      Effect.gen(function* () {
        return byHand(yield* Tracer.Tracer, yield* Clock.Clock, recorded, callers(reports.length, 1))
      }),
      layerTracer(1)
    )
  )
  const open = async (
    { layerPubsub, layerStore, openWith }: typeof workingTree,
    mode: Name,
    name: string
  ) => {
    const share = shares[mode]
    const spans = callers(reports.length, share)
    const layer = Layer.merge(layerStore(mode === "byHand" ? makeSpans : () => {}), layerPubsub)
    const { batcher } = await openWith(share > 0 ? Layer.provideMerge(layer, layerTracer(share)) : layer, {
      interval: workload.interval,
      maxBatchSize: workload.batchSize
    })
    const produce = () =>
      produceWith(batcher, workload.facts / factsPerReport, (i) =>
        addWithin(batcher, reportAt(reports, i), spans, i)
      )
    return { name, times: [] as Array<number>, pass: () => Effect.runPromise(produce()) }
  }
  const theirs = against === undefined ? undefined : using(await load(against))
  const lanes = await Promise.all(
    names.flatMap((name) => [
      open(workingTree, name, name),
      ...(theirs === undefined ? [] : [open(theirs, name, before(name))])
    ])
  )
  for (let pass = 0; pass < warmUps + passes; pass++) {
    for (const lane of lanes) {
      const ns = await cpuTime(lane.pass)
      if (pass >= warmUps) lane.times.push(ns / workload.facts)
    }
  }
  return Object.fromEntries(lanes.map(({ name, times }) => [name, summarize(times).median]))
}

interface Settings {
  readonly quick: boolean
  readonly rounds: number
}

const workloads = [
  ["w1", "W1, nothing superseded"],
  ["w2", "W2, nearly everything superseded"]
] as const

const sampleModes = async ({ quick, rounds }: Settings, against?: string) => {
  const facts = quick ? 100_000 : 400_000
  const inputs = {
    w1: { workload: { ...w1, facts }, against },
    w2: { workload: { ...w2, facts }, against }
  } satisfies Record<string, Input>
  const samples = await sampleRounds<Sample>(import.meta.filename, inputs, rounds)
  return (workload: string, name: string) =>
    (samples[workload] ?? []).map((sampled) => sampled[name] ?? Number.NaN)
}

const title = "Telemetry: flushes traced, sampled callers linked"

export const telemetryAgainst = async (against: string, settings: Settings): Promise<Row> => {
  const of = await sampleModes(settings, against)
  return newOverOld({
    row: "telemetry",
    title,
    unit: "ns/fact",
    pairs: workloads.flatMap(([workload, label]) =>
      (["off", "tenth", "all"] as const).map((mode) => ({
        label: `${label}: ${labels[mode]}`,
        now: of(workload, mode),
        before: of(workload, before(mode))
      }))
    )
  })
}

export const telemetry = async (settings: Settings): Promise<Row> => {
  const of = await sampleModes(settings)
  return {
    row: "telemetry",
    title,
    measured: workloads.flatMap(([name, label]) =>
      names.map((mode) => ({
        name: `${name}/${mode}`,
        label: `${label}: ${labels[mode]}`,
        unit: "ns/fact",
        value: summarize(of(name, mode))
      }))
    ),
    targets: workloads.flatMap(([name, label]) => [
      ...(["tenth", "all"] as const).map((mode) => ({
        what: `${labels[mode]} over no tracing, ${label}`,
        value: ratio(of(name, mode), of(name, "off")),
        target: { atMost: 1.15 }
      })),
      {
        what: `everything sampled over the same spans made by hand, ${label}`,
        value: ratio(of(name, "all"), of(name, "byHand")),
        target: { atMost: 1.15 }
      }
    ]),
    ratios: workloads.map(([name, label]) => ({
      what: `the same spans made by hand over no tracing, ${label}`,
      value: ratio(of(name, "byHand"), of(name, "off"))
    }))
  }
}
