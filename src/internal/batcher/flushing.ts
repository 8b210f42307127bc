import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Account } from "./account.ts"
import type { Accumulator } from "./accumulator.ts"
import type { Announcer } from "./announcer.ts"
import type { Health } from "./health.ts"
import type { Flushed, Reason } from "./models.ts"
import type { Resolved } from "./options.ts"
import type { Phase } from "./phase.ts"
import type { Settled, Writer } from "./writer.ts"

/** What one flush of everything that waits came to. */
export interface Sweep {
  readonly flushed: Flushed
  /** Why it ended early. */
  readonly failure: Error | undefined
}

/** Writes what waits, batch by batch. */
export interface Flushing {
  /** One batch, and the notification after it in a fiber of its own. */
  readonly one: (reason: Reason, atLeast?: number) => Effect.Effect<Settled | undefined>
  /** Refused rows whose pause is over. */
  readonly refused: Effect.Effect<Settled | undefined>
  /** All that waits now, up to the first batch that fails. Notifications go on in fibers of their own. */
  readonly all: (reason: Reason) => Effect.Effect<Sweep>
  /** `all`, shared by everybody who asks while one is under way: they get the next one. */
  readonly shared: Effect.Effect<Flushed>
  /** An outage's retry has been made: those who wait for it go on. */
  readonly attempted: () => void
  /** Waits for the notifications under way. */
  readonly awaitAnnounced: Effect.Effect<void>
  readonly interruptAll: Effect.Effect<void>
}

export const nothing: Flushed = {
  written: 0,
  superseded: 0,
  unchanged: 0,
  refused: 0,
  discarded: 0,
  unwritten: 0
}

export const make = Effect.fnUntraced(function* (environment: {
  readonly account: Account
  readonly accumulator: Pick<Accumulator<never>, "ready">
  readonly options: Resolved
  readonly health: Health
  readonly phase: Phase
  readonly writer: Writer
  readonly announcer: Announcer
  readonly foldQueued: () => void
}): Effect.fn.Return<Flushing> {
  const { account, accumulator, announcer, foldQueued, health, options, phase, writer } = environment
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const fibers = new Set<Fiber.Fiber<unknown>>()

  /** Runs in a fiber that only the batcher's close interrupts. */
  const fork = <A>(effect: Effect.Effect<A>): Fiber.Fiber<A> => {
    const fiber = runFork(effect)
    if (fiber.pollUnsafe() === undefined) {
      fibers.add(fiber)
      fiber.addObserver(() => fibers.delete(fiber))
    }
    return fiber
  }

  /** Writes a batch and announces it, in a fiber that goes on whatever becomes of whoever asked; gives back the former. */
  const inBackground = (write: Effect.Effect<Settled | undefined>): Effect.Effect<Settled | undefined> =>
    Effect.suspend(() => {
      const written = Deferred.makeUnsafe<Settled | undefined>()
      fork(
        Effect.flatMap(
          // What the close gives up answers nothing, and must not interrupt whoever waits for it.
          Effect.onExit(write, (exit) =>
            Deferred.succeed(written, exit._tag === "Success" ? exit.value : undefined)
          ),
          (settled) => (settled === undefined ? Effect.void : announcer.announce(settled))
        )
      )
      return Deferred.await(written)
    })
  const one: Flushing["one"] = (reason, atLeast) => inBackground(writer.write(reason, atLeast))

  // Those under way now: others go on being added under load, and waiting for them would never end.
  const awaitAnnounced = Effect.suspend(() => Fiber.awaitAll(Array.from(fibers)))

  const all = Effect.fnUntraced(function* (reason: Reason): Effect.fn.Return<Sweep> {
    foldQueued()
    const waiting = accumulator.ready()
    const underWay = writer.underWay()
    const batches = Array.from({ length: Math.ceil(waiting / options.maxBatchSize) })
    let settled = nothing
    let failure: Error | undefined
    let isOver = false
    // Also what others write meanwhile, a flush at capacity for one: it may have taken some of these rows.
    const note = (tally: Flushed): void => {
      settled = sum(settled, tally)
    }
    writer.listeners.add(note)
    const next = Effect.suspend(() =>
      isOver
        ? Effect.void
        : Effect.map(one(reason), (written) => {
            isOver ||= written === undefined || written.failure !== undefined
            failure ??= written?.failure
          })
    )
    yield* Effect.forEach(batches, () => next, { concurrency: options.writeConcurrency, discard: true })
    yield* Effect.all(underWay, { discard: true })
    if (failure === undefined && total(settled) < waiting)
      yield* Effect.all(writer.underWay(), { discard: true })
    writer.listeners.delete(note)
    const unwritten = failure === undefined ? settled.unwritten : accumulator.ready()
    return { flushed: { ...settled, ...apart(), unwritten }, failure }
  })

  /** What waits on purpose: refused rows, and those that say what was last written. */
  const apart = () => ({ refused: account.refused, unchanged: account.pending - accumulator.ready() })

  let attempt = Deferred.makeUnsafe<void>()
  const manual = Effect.suspend(() =>
    // The pause between two attempts holds, whoever asks; after the close there are none.
    health.isDown() && !phase.isClosed ? Effect.andThen(Deferred.await(attempt), afterAttempt) : allAndTold
  )
  const allAndTold = Effect.tap(all("manual"), () => awaitAnnounced)
  const afterAttempt: Effect.Effect<Sweep> = Effect.suspend(() => {
    if (!health.isDown()) return allAndTold
    foldQueued()
    const flushed = { ...nothing, ...apart(), unwritten: accumulator.ready() }
    return Effect.succeed({ flushed, failure: undefined })
  })

  return {
    one,
    refused: inBackground(writer.retryRefused),
    all,
    shared: makeShared(
      Effect.map(manual, ({ flushed }) => flushed),
      runFork
    ),
    attempted: () => {
      const made = attempt
      attempt = Deferred.makeUnsafe()
      Deferred.doneUnsafe(made, Effect.void)
    },
    awaitAnnounced,
    interruptAll: Effect.suspend(() => Fiber.interruptAll(Array.from(fibers)))
  }
})

/** Runs one at a time; whoever asks while it runs shares the next run with all others who do. */
const makeShared = <A>(
  run: Effect.Effect<A>,
  fork: (effect: Effect.Effect<unknown>) => unknown
): Effect.Effect<A> => {
  let running = false
  let next: Deferred.Deferred<A> | undefined
  const start = (deferred: Deferred.Deferred<A>): void => {
    running = true
    next = undefined
    fork(
      Effect.onExit(run, (exit) =>
        Effect.sync(() => {
          running = false
          Deferred.doneUnsafe(deferred, exit)
          if (next !== undefined) start(next)
        })
      )
    )
  }
  return Effect.suspend(() => {
    const asked = next ?? Deferred.makeUnsafe<A>()
    if (!running) start(asked)
    else next = asked
    return Deferred.await(asked)
  })
}

const sum = (a: Flushed, b: Flushed): Flushed => ({
  written: a.written + b.written,
  superseded: a.superseded + b.superseded,
  unchanged: a.unchanged + b.unchanged,
  refused: a.refused + b.refused,
  discarded: a.discarded + b.discarded,
  unwritten: a.unwritten + b.unwritten
})

const total = (tally: Flushed): number => Object.values(tally).reduce((rows, count) => rows + count, 0)
