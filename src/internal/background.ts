import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"

/**
 * A context for fibers that outlive whoever starts them: clock, loggers, tracer
 * and metrics stay; log annotations, spans and scope of the caller do not.
 * `others` names what else belongs to the caller, such as a transaction.
 */
export const withoutCaller = <Others = never>(
  context: Context.Context<never>,
  ...others: ReadonlyArray<Context.Key<Others, unknown>>
): Context.Context<never> =>
  Context.omit(
    References.CurrentLogAnnotations,
    References.CurrentLogSpans,
    References.CurrentStackFrame,
    References.TracerSpanAnnotations,
    References.TracerSpanLinks,
    Tracer.ParentSpan,
    Scope.Scope,
    Layer.CurrentMemoMap,
    ...others
  )(context)

/**
 * Runs in a fiber of its own, so that whoever is interrupted while waiting for it
 * leaves at once. Interrupting a statement waits for the server, which may be the
 * one that does not answer.
 */
export const impatiently = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.forkDetach(effect), (fiber) =>
    Effect.onInterrupt(Fiber.join(fiber), () => Effect.sync(() => fiber.interruptUnsafe()))
  )
