import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

type Attributes = Readonly<Record<string, unknown>>

/** The span of a round, if anybody sees it. */
export interface RoundSpan {
  /** Makes it the current span, for the store's own. */
  readonly inside: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>
  readonly annotate: (attributes: Attributes) => void
}

const none: RoundSpan = { inside: (effect) => effect, annotate: () => {} }

/**
 * Runs a round under a span of its own. It has neither parent nor links: it
 * reads for everybody who watches, and an announcement does not tell what
 * caused it.
 */
export const root = <A, E>(
  name: string,
  run: (span: RoundSpan) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.withFiber(({ cache }) =>
    // Without a tracer nobody sees a span.
    cache.tracerEnabled && cache.tracer !== undefined
      ? Effect.useSpan(name, { root: true }, (span) =>
          run({
            // Also if it is not sampled, lest the store's spans be sampled on their own.
            inside: Effect.provideService(Tracer.ParentSpan, span),
            annotate: (attributes) => {
              for (const key in attributes) span.attribute(key, attributes[key])
            }
          })
        )
      : run(none)
  )
