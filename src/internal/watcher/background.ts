import * as Context from "effect/Context"
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
  "effect/sql/CurrentTransactionService"
])

/** A transaction's connection and its semaphore, of which every `SqlClient` has keys of its own. */
const transactionKey = "effect/sql/SqlClient/Transaction"

/**
 * The context for fibers that go on when the caller has finished: without the
 * caller's span, its log annotations, and its transaction, in which statements
 * would run that nobody means to be part of it.
 */
export const background = <R>(context: Context.Context<R>): Context.Context<R> =>
  Context.makeUnsafe(
    new Map(
      Array.from(context.mapUnsafe).filter(([key]) => !callersOwn.has(key) && !key.startsWith(transactionKey))
    )
  )
