import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { impatiently } from "../background.ts"
import { innermostMessage } from "../innermostMessage.ts"
import { monotonicMillis } from "../monotonicMillis.ts"
import { type PubsubError, unavailable } from "./error.ts"
import * as Heartbeat from "./heartbeat.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"
import * as Pauses from "./pauses.ts"
import * as Session from "./session.ts"
import { Message, Resync, type Signal } from "./signal.ts"
import * as Subscribers from "./subscribers.ts"
import type { Transport } from "./transport.ts"

export interface Options {
  readonly transport: Transport
  readonly timing: Resolved
  readonly meters: Meters
  /** Stays connected while nobody subscribes, for a transport that publishes over the same connections. */
  readonly stayConnected: boolean
  /** What the fibers run with that outlive the call that starts them. */
  readonly background: Context.Context<never>
}

/** One connection that listens for every subscriber of this process. */
export interface Listener {
  /** Returns once the server has confirmed that it listens. */
  readonly subscribe: (channel: string) => Effect.Effect<Queue.Dequeue<Signal>, PubsubError, Scope.Scope>
  /** Publishes over the connection that listens; fails while there is none. */
  readonly publish: (channel: string, payloads: ReadonlyArray<string>) => Effect.Effect<void, PubsubError>
}

/** All that changes: the session, and who is subscribed. */
interface State extends Options {
  readonly scope: Scope.Scope
  readonly clock: Clock.Clock
  readonly subscribers: Subscribers.Subscribers
  /** Held while the session changes, or what it listens to. */
  readonly mutex: Semaphore.Semaphore
  readonly pauseAfterLoss: (livedMillis: number) => number
  session: Session.Session | undefined
}

export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Listener, never, Scope.Scope> {
  const subscribers = Subscribers.make(options.meters.resynced)
  yield* Effect.addFinalizer(() => subscribers.shutdown)
  const state: State = {
    ...options,
    scope: yield* Effect.scope,
    clock: yield* Clock.Clock,
    subscribers,
    mutex: Semaphore.makeUnsafe(1),
    pauseAfterLoss: Pauses.makeAfterLoss(options.timing.maxReconnectMillis),
    session: undefined
  }
  if (options.stayConnected) yield* connectAtStart(state)
  return {
    subscribe: (channel) => subscribe(state, channel),
    publish: (channel, payloads) => publish(state, channel, payloads)
  }
})

/** Runs without the caller's annotations, spans and transaction, which would stay in the fibers that it starts. */
const inBackground = <A, E>(state: State, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.updateContext(effect, () => state.background)

const fork = (state: State, effect: Effect.Effect<void>) =>
  inBackground(state, Effect.forkIn(effect, state.scope))

// Opening and losing the connection

const isWanted = (state: State): boolean => state.stayConnected || state.subscribers.channels().length > 0

const open = (state: State): Effect.Effect<Session.Session, PubsubError> =>
  inBackground(
    state,
    Session.open({
      transport: state.transport,
      scope: state.scope,
      clock: state.clock,
      prepare: (session) => prepare(state, session),
      onOpen: (session) => {
        state.session = session
        state.meters.connected(true)
        // Whoever subscribed through an earlier session may have missed something.
        for (const channel of state.subscribers.channels()) state.subscribers.deliverUnsafe(channel, Resync)
        return fork(state, supervise(state, session))
      }
    }).pipe(Effect.onError(() => Effect.sync(() => state.meters.connected(false))))
  )

/** Listens to what is subscribed already, and starts the heartbeat. */
const prepare = (state: State, session: Session.Session): Effect.Effect<void, PubsubError> => {
  const { heartbeatMillis } = state.timing
  const listenToAll = Effect.forEach(state.subscribers.channels(), (channel) =>
    listen(state, session, channel)
  )
  const heartbeat = Heartbeat.start(session, { ...state, intervalMillis: heartbeatMillis })
  return impatiently(Effect.andThen(listenToAll, heartbeat)).pipe(
    Effect.timeoutOrElse({
      duration: heartbeatMillis,
      orElse: () => Effect.fail(unavailable(new Error(`no answer within ${heartbeatMillis} ms`)))
    })
  )
}

const ensureOpen = (state: State) =>
  Effect.suspend(() => (state.session === undefined ? open(state) : Effect.succeed(state.session)))

const connectAtStart = (state: State): Effect.Effect<void> =>
  Effect.catch(Effect.asVoid(state.mutex.withPermit(open(state))), (error) =>
    warn("Could not connect to listen for notifications; trying again", error).pipe(
      Effect.andThen(fork(state, connectAgain(state)))
    )
  )

/** Waits for the loss of the connection, and makes the next. */
const supervise = (state: State, session: Session.Session): Effect.Effect<void> =>
  Effect.catch(Deferred.await(session.ended), (error) =>
    Effect.gen(function* () {
      yield* warn("Lost the connection that listens for notifications; connecting again", error)
      // Takes no permit: whoever holds it may be waiting for this very connection.
      if (state.session === session) state.session = undefined
      state.meters.connected(false)
      yield* session.close
      yield* Effect.sleep(state.pauseAfterLoss(monotonicMillis(state.clock) - session.openedAt))
      yield* connectAgain(state)
    })
  )

const connectAgain = (state: State): Effect.Effect<void> => {
  const attempt = state.mutex.withPermit(
    Effect.suspend(() => (isWanted(state) ? ensureOpen(state) : Effect.undefined))
  )
  return attempt.pipe(
    // A function that provides passwords fails with defects; it may recover all the same.
    Effect.catchDefect(Effect.fail),
    Effect.tapError((error) =>
      log(
        Effect.annotateLogs(Effect.logDebug("Could not connect to listen for notifications"), {
          error: innermostMessage(error)
        })
      )
    ),
    Effect.retry(Pauses.betweenAttempts(state.timing.maxReconnectMillis)),
    // The pauses never end.
    Effect.orDie,
    Effect.flatMap((session) => {
      state.meters.connected(true)
      if (session === undefined) return Effect.void
      state.meters.reconnected()
      return log(Effect.logInfo("Listening for notifications again"))
    })
  )
}

const warn = (message: string, error: PubsubError) =>
  log(Effect.annotateLogs(Effect.logWarning(message), { error: innermostMessage(error.reason.cause) }))

/** A logger is the application's and may throw, which must not end what it was told of. */
const log: (line: Effect.Effect<void>) => Effect.Effect<void> = Effect.catchDefect(() => Effect.void)

// Subscribing and leaving

const listen = (state: State, session: Session.Session, channel: string): Effect.Effect<void, PubsubError> =>
  Session.listen(session, channel, (payload) => {
    state.meters.received(payload)
    state.subscribers.deliverUnsafe(channel, Message(payload))
  })

const subscribe = (state: State, channel: string) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const subscription = yield* Scope.fork(yield* Effect.scope)
      return yield* restore(Scope.provide(join(state, channel), subscription)).pipe(
        Effect.onError((cause) => Scope.close(subscription, Exit.failCause(cause)))
      )
    })
  )

const join = (state: State, channel: string) =>
  state.mutex.withPermit(
    Effect.gen(function* () {
      // In the background, so that leaving never waits for the server.
      yield* Effect.addFinalizer(() => fork(state, leave(state)))
      const session = yield* ensureOpen(state)
      if (!session.channels.has(channel)) yield* inBackground(state, listen(state, session, channel))
      return yield* state.subscribers.add(channel)
    })
  )

/** Stops listening to what nobody is subscribed to any more. */
const leave = (state: State): Effect.Effect<void> =>
  state.mutex.withPermit(
    Effect.suspend(() => {
      const { session } = state
      if (session === undefined) return Effect.void
      if (isWanted(state)) return Session.leave(session, (channel) => !state.subscribers.has(channel))
      state.session = undefined
      return Effect.andThen(Deferred.succeed(session.ended, undefined), session.close)
    })
  )

const publish = (state: State, channel: string, payloads: ReadonlyArray<string>) =>
  Effect.suspend(() =>
    state.session === undefined
      ? Effect.fail(unavailable(new Error("the connection is lost; connecting again")))
      : Session.whileAlive(state.session, state.session.connection.publish(channel, payloads))
  )
