import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Tracer from "effect/Tracer"
import type { Batch, Outcome } from "./batch.ts"
import { failureLabels, failureOf } from "./failure.ts"
import { maxSpans } from "./held.ts"
import type { Flushed, Reason } from "./models.ts"

/** The span of whoever runs this fiber, if it is one worth linking to. */
export const sampledSpan = ({ cache }: Fiber.Fiber<unknown, unknown>): Tracer.AnySpan | undefined =>
  cache.span?.sampled === true ? cache.span : undefined

/**
 * A span as links need it: an ended one holds what its effect gave back and
 * what it was told, which must not wait for a store that is away.
 */
export const reference = (span: Tracer.AnySpan | undefined): Tracer.AnySpan | undefined =>
  span?._tag === "Span" ? Tracer.externalSpan(span) : span

type Attributes = Readonly<Record<string, unknown>>

/**
 * A span that is not the current one of the fiber. A tracer that bridges to
 * OpenTelemetry switches context at every operation of a fiber that has a
 * current span, about a microsecond each; so only what is called from the
 * flush, the store for one, is put `inside`, and nothing around it.
 */
export interface Handle {
  /** Makes the span the current one, for what has spans or log lines of its own. */
  readonly inside: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>
  readonly annotate: (attributes: () => Attributes) => void
  /** Runs a step under a child span, which fails if the step does. */
  readonly step: <A, E>(
    name: string,
    kind: Tracer.SpanKind,
    attributes: () => Attributes,
    run: (child: Handle) => Effect.Effect<A, E>
  ) => Effect.Effect<A, E>
}

/** The root span of a flush. The writer begins it, the announcer ends it. */
export interface FlushSpan extends Handle {
  /** Runs a log line that says what it belongs to. */
  readonly log: (line: Effect.Effect<void>) => Effect.Effect<void>
  /** A failure marks the span as failed. */
  readonly end: (failure: Error | undefined) => void
}

const noSpan: Handle = {
  inside: identity,
  annotate: () => {},
  step: (_name, _kind, _attributes, run) => run(noSpan)
}

/** A span that nobody will see is still the parent of what the store does, lest that be sampled on its own. */
const unsampled = (span: Tracer.Span): Handle => {
  const handle: Handle = {
    ...noSpan,
    inside: Effect.provideService(Tracer.ParentSpan, span),
    step: (_name, _kind, _attributes, run) => run(handle)
  }
  return handle
}

/** A tracer is the application's, and one may throw: that must not cost a batch. */
const quietly = (call: () => void): void => {
  try {
    call()
  } catch {}
}

const makeSpan = (name: string, options: Tracer.SpanOptionsNoTrace): Effect.Effect<Tracer.Span | undefined> =>
  Effect.catchDefect(Effect.makeSpan(name, options), () => Effect.undefined)

const endSpan = (span: Tracer.Span, clock: Clock.Clock, exit: Exit.Exit<unknown, unknown>): void =>
  quietly(() => span.end(clock.currentTimeNanosUnsafe(), exit))

const traced = (span: Tracer.Span, clock: Clock.Clock): Handle => ({
  inside: Effect.provideService(Tracer.ParentSpan, span),
  annotate: (attributes) =>
    quietly(() => {
      const all = attributes()
      for (const name in all) span.attribute(name, all[name])
    }),
  step: (name, kind, attributes, run) =>
    Effect.flatMap(makeSpan(name, { parent: span, kind, attributes: attributes() }), (child) =>
      child === undefined
        ? run(noSpan)
        : Effect.onExit(run(traced(child, clock)), (exit) => Effect.sync(() => endSpan(child, clock, exit)))
    )
})

/** What is known of a flush when it begins. */
export interface Beginning {
  readonly reason: Reason
  readonly batch: Batch<unknown>
  readonly attempt: number
  /** Records superseded since the flush before this one. */
  readonly superseded: number
  readonly now: number
}

/**
 * Begins the span of a flush, linked to the spans of those whose records it
 * writes. It has no parent: a batch belongs to many requests.
 *
 * The names of attributes that are not the batcher's own are those of
 * OpenTelemetry's semantic conventions 1.45.
 */
export const begin = (
  name: string,
  clock: Clock.Clock,
  beginning: () => Beginning
): Effect.Effect<FlushSpan> =>
  Effect.withFiber(({ cache }) => {
    const { batch, reason } = beginning()
    const annotations = { reason, batchSize: batch.records.length }
    const untraced: FlushSpan = { ...noSpan, log: Effect.annotateLogs(annotations), end: () => {} }
    // Without a tracer nobody sees a span, which costs as much as writing the columns of a batch.
    if (!cache.tracerEnabled || cache.tracer === undefined) return Effect.succeed(untraced)
    return Effect.map(makeSpan(name, { root: true }), (span) => {
      if (span === undefined) return untraced
      const handle = span.sampled ? traced(span, clock) : unsampled(span)
      if (span.sampled) quietly(() => describe(span, beginning()))
      const { spanId, traceId } = span
      const ids = span.sampled ? { traceId, spanId } : {}
      return {
        ...handle,
        log: (line) => handle.inside(Effect.annotateLogs(line, { ...annotations, ...ids })),
        end: (failure) => endSpan(span, clock, failure === undefined ? Exit.void : Exit.fail(failure))
      }
    })
  })

const describe = (span: Tracer.Span, beginning: Beginning): void => {
  const { batch, now } = beginning
  const spans = new Map<string, Tracer.AnySpan>()
  let oldest = now
  let sum = 0
  for (const held of batch.held) {
    sum += held.since * held.records.length
    if (held.since < oldest) oldest = held.since
    for (const one of held.spans) spans.set(one.spanId, one)
  }
  const links: Array<Tracer.SpanLink> = []
  for (const one of spans.values()) {
    if (links.length === maxSpans) break
    links.push({ span: one, attributes: noAttributes })
  }
  const size = batch.records.length
  const attributes: Attributes = {
    "batcher.flush.reason": beginning.reason,
    "batcher.flush.attempt": beginning.attempt,
    // The outcome, until it comes to another one.
    "batcher.flush.outcome": "abandoned",
    "batcher.rows.written": 0,
    "batcher.rows.refused": 0,
    "batcher.rows.discarded": size,
    "batcher.rows.requeued": 0,
    "batcher.batch.size": size,
    "batcher.batch.agents": new Set(batch.held.map(({ group }) => group)).size,
    "batcher.queue_wait.oldest_ms": now - oldest,
    "batcher.queue_wait.mean_ms": now - sum / size,
    "batcher.rows.superseded": beginning.superseded,
    "batcher.links.omitted": spans.size - links.length
  }
  for (const name in attributes) span.attribute(name, attributes[name])
  span.addLinks(links)
}

const noAttributes = {}

/** What became of the rows of a flush. */
export const outcomeAttributes = ({ failure }: Outcome, { discarded, ...tally }: Flushed): Attributes => ({
  "batcher.flush.outcome":
    failure === undefined && tally.written > 0
      ? "written"
      : tally.unwritten > 0
        ? "requeued"
        : tally.written + tally.superseded + discarded === 0
          ? "refused"
          : "discarded",
  "batcher.rows.written": tally.written,
  "batcher.rows.refused": tally.refused,
  "batcher.rows.discarded": discarded,
  "batcher.rows.requeued": tally.unwritten,
  ...(failure && { "error.type": failureLabels[failureOf(failure).kind] })
})
