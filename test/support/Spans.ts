/** OpenTelemetry's SDK with an exporter that keeps what it is given. */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import {
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
  type TracerConfig
} from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"

/** Exported spans, in the order in which they began. */
export interface Spans {
  readonly all: () => ReadonlyArray<ReadableSpan>
  readonly named: (name: string) => ReadonlyArray<ReadableSpan>
  readonly childrenOf: (span: ReadableSpan | undefined) => ReadonlyArray<ReadableSpan>
}

export const make = (
  config?: TracerConfig
): { readonly spans: Spans; readonly layer: Layer.Layer<never> } => {
  const exporter = new InMemorySpanExporter()
  const began: Array<string> = []
  const processor = new SimpleSpanProcessor(exporter)
  const onStart = processor.onStart.bind(processor)
  processor.onStart = (span, context) => {
    began.push(span.spanContext().spanId)
    onStart(span, context)
  }
  const all = () =>
    exporter
      .getFinishedSpans()
      .toSorted((a, b) => began.indexOf(a.spanContext().spanId) - began.indexOf(b.spanContext().spanId))
  return {
    spans: {
      all,
      named: (name) => all().filter((span) => span.name === name),
      childrenOf: (parent) =>
        all().filter((span) => span.parentSpanContext?.spanId === parent?.spanContext().spanId)
    },
    layer: NodeSdk.layer(() => ({
      resource: { serviceName: "test" },
      spanProcessor: processor,
      tracerConfig: config
    })) as Layer.Layer<never>
  }
}

/** Runs a test with the SDK as its tracer. */
export const withSpans =
  <A, E, R>(test: (spans: Spans) => Effect.Effect<A, E, R>): (() => Effect.Effect<A, E, R>) =>
  () =>
    Effect.suspend(() => {
      const { layer, spans } = make()
      return Effect.provide(test(spans), layer)
    })
