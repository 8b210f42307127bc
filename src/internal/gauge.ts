import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"

/** A gauge that is read when metrics are, and gone with the scope. */
export const observe = (
  context: Context.Context<never>,
  gauge: Metric.Gauge<number>,
  read: () => number
): Effect.Effect<unknown, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      Metric.registerUnsafe(gauge, context, {
        get: () => ({ value: read() }),
        update: () => {},
        modify: () => {}
      })
    ),
    (registration) => Effect.sync(registration.remove)
  )
