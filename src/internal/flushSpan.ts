import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Tracer from "effect/Tracer"
import type { Message, Reason, Row } from "../Batcher.ts"

/** OpenTelemetry's default limit of links per span; exporters drop what is beyond it. */
export const maxLinks = 128

/** The span of whoever runs this fiber, if it is one worth linking to. */
export const sampledSpan = ({ cache }: Fiber.Fiber<unknown, unknown>): Tracer.AnySpan | undefined =>
  cache.span?.sampled === true ? cache.span : undefined

/**
 * Runs a flush under a span of its own, linked to the spans of those whose
 * records it writes. It has no parent: a batch belongs to many requests.
 */
export const root = <A, E, R>(
  flush: Effect.Effect<A, E, R>,
  options: {
    readonly name: string
    readonly reason: Reason
    readonly rows: ReadonlyArray<Row<Message>>
    readonly attempt: number
    readonly now: number
  }
): Effect.Effect<A, E, R> =>
  whenTraced(
    flush,
    () =>
      Effect.withSpan(flush, `${options.name}.flush`, {
        root: true,
        captureStackTrace: false,
        ...describe(options)
      }) as Effect.Effect<A, E, R>
  )

/** Without a tracer nobody sees a span, which costs as much as writing the columns of a batch. */
const whenTraced = <A, E, R>(
  untraced: Effect.Effect<A, E, R>,
  traced: () => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ cache }) => (cache.tracerEnabled && cache.tracer !== undefined ? traced() : untraced))

const describe = (options: {
  readonly reason: Reason
  readonly rows: ReadonlyArray<Row<Message>>
  readonly attempt: number
  readonly now: number
}) => {
  let oldest = options.now
  let sum = 0
  let spans: Set<Tracer.AnySpan> | undefined
  for (const { origin } of options.rows) {
    if (origin.addedAt < oldest) oldest = origin.addedAt
    sum += origin.addedAt
    if (origin.span !== undefined) (spans ??= new Set()).add(origin.span)
  }
  const links: Array<Tracer.SpanLink> = []
  for (const span of spans ?? []) {
    if (links.length === maxLinks) break
    links.push({ span, attributes: {} })
  }
  return {
    links,
    attributes: {
      "batcher.flush.reason": options.reason,
      "batcher.flush.attempt": options.attempt,
      "batcher.batch.size": options.rows.length,
      "batcher.queue_wait.oldest_ms": options.now - oldest,
      "batcher.queue_wait.mean_ms": options.now - sum / options.rows.length,
      "batcher.links.omitted": (spans?.size ?? 0) - links.length
    }
  }
}

/** A step of a flush. */
export const child =
  (name: string, kind: Tracer.SpanKind, attributes?: Record<string, unknown> | undefined) =>
  <A, E, R>(step: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    whenTraced(
      step,
      () =>
        Effect.withSpan(step, name, { kind, attributes, captureStackTrace: false }) as Effect.Effect<A, E, R>
    )
