import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Tracer from "effect/Tracer"
import type { Message, Reason, Row } from "../Batcher.ts"

/** OpenTelemetry's default limit of links per span; exporters drop what is beyond it. */
export const maxLinks = 128

/** The span of whoever runs this fiber, if it is one worth linking to. */
export const sampledSpan = ({ cache }: Fiber.Fiber<unknown, unknown>): Tracer.AnySpan | undefined =>
  cache.span?.sampled === true ? cache.span : undefined

/**
 * A span as links need it: an ended one holds what its effect gave back and
 * what it was told, which must not wait for a store that is away.
 */
export const reference = (span: Tracer.AnySpan | undefined): Tracer.ExternalSpan | undefined =>
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
  /** For log lines, whose writers need not know of spans. */
  readonly ids: { readonly traceId: string; readonly spanId: string } | undefined
}

/** The flush under way, for what writes and publishes: its span, and its log lines, which say what they belong to. */
export interface Flush {
  readonly span: Handle
  readonly log: (line: Effect.Effect<void>) => Effect.Effect<void>
}

const noSpan: Handle = {
  inside: identity,
  annotate: () => {},
  step: (_name, _kind, _attributes, run) => run(noSpan),
  ids: undefined
}

/** A flush that has no span, or lost it. */
export const untraced: Flush = { span: noSpan, log: identity }

/** A span that nobody will see is still the parent of what the store does, lest that be sampled on its own. */
const unsampled = (span: Tracer.Span): Handle => {
  const handle: Handle = {
    ...noSpan,
    inside: Effect.provideService(Tracer.ParentSpan, span),
    step: (_name, _kind, _attributes, run) => run(handle)
  }
  return handle
}

const traced = (span: Tracer.Span): Handle => ({
  inside: Effect.provideService(Tracer.ParentSpan, span),
  annotate: (attributes) => {
    const all = attributes()
    for (const name in all) span.attribute(name, all[name])
  },
  step: (name, kind, attributes, run) =>
    Effect.useSpan(name, { parent: span, kind, attributes: attributes() }, (child) => run(traced(child))),
  ids: { traceId: span.traceId, spanId: span.spanId }
})

/**
 * Runs a flush under a span of its own, linked to the spans of those whose
 * records it writes. It has no parent: a batch belongs to many requests.
 *
 * The names of attributes that are not the batcher's own are those of
 * OpenTelemetry's semantic conventions 1.45.
 */
export const root = <A, E>(
  name: string,
  describe: () => { readonly links: Array<Tracer.SpanLink>; readonly attributes: Attributes },
  run: (span: Handle) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.withFiber(({ cache }) =>
    // Without a tracer nobody sees a span, which costs as much as writing the columns of a batch.
    cache.tracerEnabled && cache.tracer !== undefined
      ? Effect.useSpan(name, { root: true }, (span) => {
          if (!span.sampled) return run(unsampled(span))
          const { attributes, links } = describe()
          const handle = traced(span)
          handle.annotate(() => attributes)
          span.addLinks(links)
          return run(handle)
        })
      : run(noSpan)
  )

/** What is known of a flush when it begins. */
export const describe = (flush: {
  readonly reason: Reason
  readonly rows: ReadonlyArray<Row<Message>>
  readonly agents: number
  readonly attempt: number
  /** Records superseded since the flush before this one. */
  readonly superseded: number
  readonly now: number
}): { readonly links: Array<Tracer.SpanLink>; readonly attributes: Attributes } => {
  const { now, rows } = flush
  const spans = new Map<string, Tracer.AnySpan>()
  let oldest = now
  let sum = 0
  let previous: Message | undefined
  for (const { origin } of rows) {
    sum += origin.addedAt
    // The records of a message stand together, so that its span is looked at once.
    if (origin === previous) continue
    previous = origin
    if (origin.addedAt < oldest) oldest = origin.addedAt
    if (origin.span !== undefined) spans.set(origin.span.spanId, origin.span)
  }
  const links: Array<Tracer.SpanLink> = []
  for (const span of spans.values()) {
    if (links.length === maxLinks) break
    links.push({ span, attributes: noAttributes })
  }
  return {
    links,
    attributes: {
      "batcher.flush.reason": flush.reason,
      "batcher.flush.attempt": flush.attempt,
      // The outcome, until it comes to another one.
      "batcher.flush.outcome": "abandoned",
      "batcher.rows.written": 0,
      "batcher.rows.discarded": rows.length,
      "batcher.rows.requeued": 0,
      "batcher.batch.size": rows.length,
      "batcher.batch.agents": flush.agents,
      "batcher.queue_wait.oldest_ms": now - oldest,
      "batcher.queue_wait.mean_ms": now - sum / rows.length,
      "batcher.rows.superseded": flush.superseded,
      "batcher.links.omitted": spans.size - links.length
    }
  }
}

const noAttributes = {}
