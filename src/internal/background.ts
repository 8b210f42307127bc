import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"

/** What belongs to a caller, and would be wrong in a fiber that outlives the call. */
const callersOwn: ReadonlySet<string> = new Set([
  Tracer.ParentSpan.key,
  References.CurrentLogAnnotations.key,
  References.CurrentLogSpans.key,
  References.CurrentStackFrame.key,
  References.TracerSpanAnnotations.key,
  References.TracerSpanLinks.key,
  Layer.CurrentMemoMap.key,
  "effect/sql/CurrentTransactionService"
])

/** A transaction's connection and its semaphore, of which every `SqlClient` has keys of its own. */
const transactionKey = "effect/sql/SqlClient/Transaction"

/**
 * The context for fibers that go on when whoever started them has finished:
 * clock, loggers, tracer and metrics stay. The caller's span and log annotations
 * do not, nor its transaction, in which statements would run that nobody means
 * to be part of it.
 */
export const withoutCaller = <R>(context: Context.Context<R>): Context.Context<R> =>
  Context.makeUnsafe(
    new Map(
      Array.from(context.mapUnsafe).filter(([key]) => !callersOwn.has(key) && !key.startsWith(transactionKey))
    )
  )

/**
 * Runs in a fiber of its own, so that whoever is interrupted while waiting for it
 * leaves at once. Interrupting a statement waits for the server, which may be the
 * one that does not answer.
 */
export const impatiently = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.forkDetach(effect), (fiber) =>
    Effect.onInterrupt(Fiber.join(fiber), () => Effect.sync(() => fiber.interruptUnsafe()))
  )
