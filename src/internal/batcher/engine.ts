import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as BatcherMetrics from "../../BatcherMetrics.ts"
import { withoutCaller } from "../background.ts"
import { monotonicMillis } from "../monotonicMillis.ts"
import type { InvalidOptionError } from "../options.ts"
import { Account } from "./account.ts"
import type { Accumulator } from "./accumulator.ts"
import * as Announcer from "./announcer.ts"
import * as Closing from "./closing.ts"
import type { Definition } from "./definition.ts"
import * as Discards from "./discards.ts"
import * as Flushing from "./flushing.ts"
import * as Health from "./health.ts"
import * as Intake from "./intake.ts"
import * as IntakeLog from "./intakeLog.ts"
import * as Meters from "./meters.ts"
import type { Accounting, Flushed, Status } from "./models.ts"
import * as Options from "./options.ts"
import { Phase } from "./phase.ts"
import * as Triggers from "./triggers.ts"
import * as Writer from "./writer.ts"

/** A running batcher. */
export interface Engine<in A> {
  readonly offerUnsafe: Intake.Intake<A>["offerUnsafe"]
  readonly forget: (group: string) => Effect.Effect<void>
  readonly flush: Effect.Effect<Flushed>
  readonly accounting: Effect.Effect<Accounting>
  readonly status: Effect.Effect<Status>
  /** Others have written rows of this group, or of any. */
  readonly forgetWrittenUnsafe: (group: string | undefined) => void
}

const build = Effect.fnUntraced(function* <A>(
  definition: Definition<A>,
  options: Options.Resolved
): Effect.fn.Return<Engine<A>, never, Scope.Scope> {
  const { name } = options
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const timeout = options.writeTimeout
  const account = new Account()

  // What waits, and where it goes when it is given up.
  const discards = yield* Discards.make(definition.onDiscarded, options.maxPending, timeout || 30_000, clock)
  const accumulator = definition.accumulate.make({
    account,
    maxPending: options.maxPending,
    maxPendingBytes: options.maxPendingBytes,
    interval: options.interval,
    unchanged: options.unchanged,
    discards: discards.isWanted,
    now,
    elapsed: () => monotonicMillis(clock),
    discard: discards.add
  })

  // What is counted, and the path of a record: intake, writer, announcer.
  const { batchSizeBoundaries } = definition.defaults ?? {}
  const kind = definition.kind ?? definition.name.toLowerCase()
  const metrics = BatcherMetrics.make({ prefix: options.metricsPrefix, kind, batchSizeBoundaries })
  const meters = yield* Meters.make(metrics, account)
  const intakeLog = yield* IntakeLog.make({ name, clock, meters, options })
  const intake = yield* Intake.make({
    accumulate: definition.accumulate,
    accumulator,
    account,
    capacity: options.capacity,
    maxPending: options.maxPending,
    maxPendingBytes: options.maxPendingBytes,
    maxAhead: options.maxAhead,
    now,
    events: intakeLog.events
  })
  const phase = new Phase(clock, options)
  const health = Health.make(clock, account)
  const someRefused = Latch.makeUnsafe(false)
  const writer = Writer.make({
    definition,
    name,
    options,
    account,
    accumulator,
    health,
    meters,
    clock,
    phase,
    someRefused
  })
  const announcer = Announcer.make({
    announce: definition.announce,
    name,
    meters,
    clock,
    timeout,
    maxWaiting: options.maxPending,
    pauses: Triggers.backoff(options.interval)
  })
  const foldQueued = () => intake.foldUnsafe(() => false)
  const flushing = yield* Flushing.make({
    account,
    accumulator,
    options,
    health,
    phase,
    writer,
    announcer,
    foldQueued
  })

  yield* Meters.observeAll(metrics, account, {
    oldest: () => accumulator.oldest(),
    unannounced: announcer.unannounced,
    now
  })

  // All that the close uses stands now. It runs after the fibers below have ended.
  yield* Effect.addFinalizer(() =>
    Closing.close({
      account,
      accumulator,
      announcer,
      discards,
      flushing,
      intake,
      intakeLog,
      meters,
      options,
      phase,
      writer
    })
  )
  const triggers = Triggers.make({
    account,
    someRefused,
    options,
    clock,
    intake,
    accumulator,
    health,
    meters,
    flushing
  })
  for (const fiber of [discards.run, announcer.retry, intakeLog.run, ...triggers])
    yield* Effect.forkScoped(fiber)

  return {
    offerUnsafe: intake.offerUnsafe,
    forget: (group) => forget(accumulator, foldQueued, writer, group),
    flush: Effect.suspend(() => (phase.isClosed ? Effect.succeed(Flushing.nothing) : flushing.shared)),
    accounting: Effect.sync(() => account.snapshot()),
    status: Effect.sync(health.status),
    forgetWrittenUnsafe: (group) => accumulator.forgetWritten(group)
  }
})

/** Gives up what waits of a group, and returns once no write holds it. */
const forget = <A>(
  accumulator: Accumulator<A>,
  foldQueued: () => void,
  writer: Writer.Writer,
  group: string
): Effect.Effect<void> =>
  Effect.suspend(() => {
    foldQueued()
    const underWay = writer.underWay()
    accumulator.forget(group)
    return Effect.all(underWay, { discard: true })
  })

/**
 * Runs a batcher until the scope closes, and then writes what is left.
 *
 * Its fibers outlive the span, the log annotations and the transaction in which
 * its layer is built: nothing they do belongs to those.
 */
export const make = <A>(
  definition: Definition<A>
): Effect.Effect<Engine<A>, InvalidOptionError, Scope.Scope> =>
  Effect.flatMap(Options.resolve(definition), (options) =>
    Effect.updateContext(
      Effect.annotateLogs(build(definition, options), "batcher", options.name),
      (context: Context.Context<Scope.Scope>) => withoutCaller(context)
    )
  )
