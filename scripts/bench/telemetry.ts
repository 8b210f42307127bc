/**
 * What traces cost: the same reports, each added within a span of its caller's,
 * with OpenTelemetry's tracer, over no tracer and no caller sampled; once with
 * one in ten flushes and callers sampled, once with all of them. They take turns
 * in one process. Spans go through the batch processor to an exporter that drops
 * them.
 */
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  type SpanExporter,
  TraceIdRatioBasedSampler
} from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Tracer from "effect/Tracer"
import { drain, hasRoom, layerPubsub, layerStore, openWith } from "./ours.ts"
import type { Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { cpuTime, ratio, summarize } from "./statistics.ts"
import { factsPerReport, makeReports, reportAt, stride, type Workload, w1, w2 } from "./workload.ts"

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

const shares = { off: 0, tenth: 0.1, all: 1 }
type Name = keyof typeof shares
const names = Object.keys(shares) as ReadonlyArray<Name>
const labels = { off: "no tracing", tenth: "one in ten sampled", all: "everything sampled" }

const warmUps = 8
const passes = 12

type Sample = Readonly<Record<Name, number>>

export const sample = async (workload: Workload): Promise<Sample> => {
  const reports = makeReports(workload)
  const open = async (name: Name) => {
    const share = shares[name]
    const spans = callers(reports.length, share)
    const layer = Layer.merge(
      layerStore(() => {}),
      layerPubsub
    )
    const { batcher } = await openWith(share > 0 ? Layer.provideMerge(layer, layerTracer(share)) : layer, {
      interval: workload.interval,
      maxBatchSize: workload.batchSize
    })
    const produce = Effect.fnUntraced(function* () {
      for (let i = 1; i <= workload.facts / factsPerReport; i++) {
        const { agentId, facts } = reportAt(reports, i - 1)
        const span = spans[(i - 1) % spans.length] as Tracer.AnySpan
        yield* Effect.provideService(batcher.add(agentId, facts), Tracer.ParentSpan, span)
        if (i % stride === 0) {
          do yield* Effect.yieldNow
          while (!(yield* hasRoom(batcher)))
        }
      }
      yield* drain(batcher)
    })
    return { name, times: [] as Array<number>, pass: () => Effect.runPromise(produce()) }
  }
  const lanes = await Promise.all(names.map(open))
  for (let pass = 0; pass < warmUps + passes; pass++) {
    for (const lane of lanes) {
      const ns = await cpuTime(lane.pass)
      if (pass >= warmUps) lane.times.push(ns / workload.facts)
    }
  }
  return Object.fromEntries(lanes.map(({ name, times }) => [name, summarize(times).median])) as Sample
}

export const telemetry = async (settings: {
  readonly quick: boolean
  readonly rounds: number
}): Promise<Row> => {
  const facts = settings.quick ? 100_000 : 400_000
  const samples = await sampleRounds<Sample>(
    import.meta.filename,
    { w1: { ...w1, facts }, w2: { ...w2, facts } },
    settings.rounds
  )
  const of = (workload: string, name: Name) => (samples[workload] ?? []).map((sampled) => sampled[name])
  const workloads = [
    ["w1", "W1, nothing superseded"],
    ["w2", "W2, nearly everything superseded"]
  ] as const
  return {
    row: "telemetry",
    title: "Telemetry: flushes traced, sampled callers linked",
    measured: workloads.flatMap(([name, label]) =>
      names.map((mode) => ({
        name: `${name}/${mode}`,
        label: `${label}: ${labels[mode]}`,
        unit: "ns/fact",
        value: summarize(of(name, mode))
      }))
    ),
    targets: workloads.flatMap(([name, label]) =>
      (["tenth", "all"] as const).map((mode) => ({
        what: `${labels[mode]} over no tracing, ${label}`,
        value: ratio(of(name, mode), of(name, "off")),
        target: { atMost: 1.15 }
      }))
    )
  }
}
