/**
 * What traces cost: the same reports, each added within a span of its caller's,
 * with OpenTelemetry's tracer and every caller sampled, over no tracer and no
 * caller sampled. Both take turns in one process. Spans go through the batch
 * processor to an exporter that drops them; exporting is another thread's or
 * another process's work in neither case.
 */
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from "@opentelemetry/sdk-trace-base"
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

/** OpenTelemetry's tracer, whose spans are dropped once they have been batched. */
export const layerTracer = Layer.effect(Tracer.Tracer, OtelTracer.make).pipe(
  Layer.provide(
    Layer.sync(OtelTracer.OtelTracer, () =>
      new BasicTracerProvider({ spanProcessors: [new BatchSpanProcessor(dropping)] }).getTracer("bench")
    )
  )
)

/** The spans within which reports are added. */
export const callers = (count: number, sampled: boolean): ReadonlyArray<Tracer.AnySpan> =>
  Array.from({ length: count }, (_, i) =>
    Tracer.externalSpan({
      traceId: (i + 1).toString(16).padStart(32, "0"),
      spanId: (i + 1).toString(16).padStart(16, "0"),
      sampled
    })
  )

const warmUps = 8
const passes = 12

interface Sample {
  readonly off: number
  readonly on: number
}

export const sample = async (workload: Workload): Promise<Sample> => {
  const reports = makeReports(workload)
  const open = async (traced: boolean) => {
    const spans = callers(reports.length, traced)
    const layer = Layer.merge(
      layerStore(() => {}),
      layerPubsub
    )
    const { batcher } = await openWith(traced ? Layer.provideMerge(layer, layerTracer) : layer, {
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
    return { times: [] as Array<number>, pass: () => Effect.runPromise(produce()) }
  }
  const lanes = { off: await open(false), on: await open(true) }
  for (let pass = 0; pass < warmUps + passes; pass++) {
    for (const lane of Object.values(lanes)) {
      const ns = await cpuTime(lane.pass)
      if (pass >= warmUps) lane.times.push(ns / workload.facts)
    }
  }
  return { off: summarize(lanes.off.times).median, on: summarize(lanes.on.times).median }
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
  const of = (workload: string, name: keyof Sample) =>
    (samples[workload] ?? []).map((sampled) => sampled[name])
  const workloads = [
    ["w1", "W1, nothing superseded"],
    ["w2", "W2, nearly everything superseded"]
  ] as const
  return {
    row: "telemetry",
    title: "Telemetry: every flush traced, every caller sampled and linked",
    measured: workloads.flatMap(([name, label]) =>
      (["off", "on"] as const).map((mode) => ({
        name: `${name}/${mode}`,
        label: `${label}, tracing ${mode}`,
        unit: "ns/fact",
        value: summarize(of(name, mode))
      }))
    ),
    targets: workloads.map(([name, label]) => ({
      what: `tracing on over off, ${label}`,
      value: ratio(of(name, "on"), of(name, "off")),
      target: { atMost: 1.15 }
    }))
  }
}
