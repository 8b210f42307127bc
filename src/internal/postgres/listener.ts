import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import { innermostMessage } from "../innermostMessage.ts"
import { monotonicMillis } from "../monotonicMillis.ts"
import { Resync, type Signal } from "../pubsub/signal.ts"
import * as Subscribers from "../pubsub/subscribers.ts"

/** The first pause between two attempts to connect. */
const firstPauseMillis = 100

export interface Options {
  readonly connection: PgConnection.Config
  readonly heartbeat: Duration.Input
  readonly maxReconnectDelay: Duration.Input
}

/** One connection that listens for every subscriber of this process. */
export interface Listener {
  /** Returns once `LISTEN` is confirmed. */
  readonly subscribe: (channel: string) => Effect.Effect<Queue.Dequeue<Signal>, SqlError, Scope.Scope>
}

// One connection's life. It ends when nobody is left to listen for, or is lost.
interface Session {
  readonly connection: PgConnection.PgConnection
  /** Holds a scope per channel, closing which sends `UNLISTEN`. */
  readonly scope: Scope.Closeable
  readonly channels: Map<string, Scope.Closeable>
  readonly openedAt: number
  /** Fails when the connection is found dead; succeeds when it is closed on purpose. */
  readonly ended: Deferred.Deferred<void, unknown>
  readonly close: Effect.Effect<void>
}

const noAnswer = (): SqlError =>
  new SqlError({ reason: new ConnectionError({ cause: new Error("LISTEN was not answered in time") }) })

export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Listener, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const subscribers = Subscribers.make()
  yield* Effect.addFinalizer(() => subscribers.shutdown)

  // Held while the session or what it listens to changes.
  const mutex = Semaphore.makeUnsafe(1)
  let current: Session | undefined

  const config: PgConnection.Config = {
    ...options.connection,
    keepAlive: options.connection.keepAlive ?? "10 seconds",
    applicationName: "effect-metadata-batcher/listen",
    // Makes statements interruptible, and there is nothing to share.
    multiplex: false
  }

  const backoff = Schedule.min([
    Schedule.exponential(firstPauseMillis),
    Schedule.spaced(options.maxReconnectDelay)
  ]).pipe(Schedule.jittered)

  const pump = (
    session: Session,
    channel: string,
    notifications: Queue.Dequeue<PgConnection.Notification, SqlError>
  ) =>
    Queue.take(notifications).pipe(
      Effect.flatMap(({ payload }) =>
        Effect.sync(() => subscribers.deliverUnsafe(channel, { _tag: "Message", payload }))
      ),
      Effect.forever,
      Effect.catch((error) => Deferred.fail(session.ended, error))
    )

  const listen = Effect.fnUntraced(function* (session: Session, channel: string) {
    const channelScope = yield* Scope.fork(session.scope)
    yield* Effect.gen(function* () {
      const notifications = yield* Scope.provide(session.connection.listen(channel), channelScope)
      // Whoever subscribed through an earlier session may have missed something.
      subscribers.deliverUnsafe(channel, Resync)
      yield* Effect.forkIn(pump(session, channel, notifications), channelScope)
      session.channels.set(channel, channelScope)
    }).pipe(Effect.onError((cause) => Scope.close(channelScope, Exit.failCause(cause))))
  })

  // Keepalive probes find a dead host, not a hung server or a proxy that lost
  // its server. The statement has a fiber of its own, since interrupting it
  // would wait for the very connection that does not answer.
  const heartbeat = (session: Session) =>
    Effect.forkIn(session.connection.query("SELECT 1"), session.scope).pipe(
      Effect.delay(options.heartbeat),
      Effect.flatMap((answer) => Effect.timeout(Fiber.join(answer), options.heartbeat)),
      Effect.forever,
      Effect.catch((error) => Deferred.fail(session.ended, error)),
      Effect.forkIn(session.scope)
    )

  const open = Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      // The connection closes before what was acquired on it, which then has
      // nobody left to send UNLISTEN to, and cannot hang on a dead one.
      const sessionScope = yield* Scope.fork(scope)
      const connectionScope = yield* Scope.fork(scope)
      const close = Effect.andThen(
        Scope.close(connectionScope, Exit.void),
        Scope.close(sessionScope, Exit.void)
      )
      return yield* restore(
        Effect.gen(function* () {
          const connection = yield* Scope.provide(PgConnection.make(config), connectionScope)
          const session: Session = {
            connection: yield* Scope.provide(connection.pin, sessionScope),
            scope: sessionScope,
            channels: new Map(),
            openedAt: monotonicMillis(clock),
            ended: Deferred.makeUnsafe(),
            close
          }
          yield* Effect.forEach(subscribers.channels(), (channel) => listen(session, channel), {
            discard: true
          }).pipe(
            Effect.timeoutOrElse({ duration: options.heartbeat, orElse: () => Effect.fail(noAnswer()) })
          )
          yield* heartbeat(session)
          return session
        })
      ).pipe(
        Effect.onError(() => close),
        Effect.tap((session) => {
          current = session
          return Effect.forkIn(supervise(session), scope)
        })
      )
    })
  )

  const ensureOpen = Effect.suspend(() => (current === undefined ? open : Effect.succeed(current)))

  // Takes no permit: whoever holds it may be waiting for this very connection.
  const abandon = (session: Session) =>
    Effect.suspend(() => {
      if (current === session) current = undefined
      return session.close
    })

  const reopen = mutex
    .withPermit(Effect.suspend(() => (subscribers.channels().length === 0 ? Effect.undefined : ensureOpen)))
    .pipe(
      // A provider of passwords fails with defects; it may recover all the same.
      Effect.catchDefect(Effect.fail),
      Effect.tapError((error) =>
        Effect.annotateLogs(Effect.logDebug("Could not connect to listen for notifications"), {
          error: innermostMessage(error)
        })
      ),
      Effect.retry(backoff),
      // The pauses never end.
      Effect.orDie
    )

  // A connection that is made and lost at once, by a proxy without a server for
  // one, is as good as none: each costs every subscriber a `Resync`.
  const maxPauseMillis = Duration.toMillis(Duration.fromInputUnsafe(options.maxReconnectDelay))
  let shortLived = 0
  const pauseAfter = (session: Session): number => {
    const isShortLived = monotonicMillis(clock) - session.openedAt < maxPauseMillis
    shortLived = isShortLived ? shortLived + 1 : 0
    return shortLived < 2 ? 0 : Math.min(firstPauseMillis * 2 ** (shortLived - 2), maxPauseMillis)
  }

  const supervise = (session: Session): Effect.Effect<void> =>
    Effect.catch(Deferred.await(session.ended), (error) =>
      Effect.gen(function* () {
        yield* Effect.annotateLogs(
          Effect.logWarning("Lost the connection that listens for notifications; connecting again"),
          { error: innermostMessage(error) }
        )
        yield* abandon(session)
        yield* Effect.sleep(pauseAfter(session))
        const reopened = yield* reopen
        if (reopened !== undefined) yield* Effect.logInfo("Listening for notifications again")
      })
    )

  const unlisten = mutex.withPermit(
    Effect.suspend(() => {
      if (current === undefined) return Effect.void
      if (subscribers.channels().length === 0) {
        const session = current
        current = undefined
        return Effect.andThen(Deferred.succeed(session.ended, undefined), session.close)
      }
      const { channels } = current
      return Effect.forEach(
        Array.from(channels).filter(([channel]) => !subscribers.has(channel)),
        ([channel, channelScope]) => {
          channels.delete(channel)
          return Scope.close(channelScope, Exit.void)
        },
        { discard: true }
      )
    })
  )

  const subscribe = (channel: string) =>
    mutex.withPermit(
      Effect.gen(function* () {
        // In the background, so that leaving never waits for the server.
        yield* Effect.addFinalizer(() => Effect.forkIn(unlisten, scope))
        const session = yield* ensureOpen
        if (!session.channels.has(channel)) yield* listen(session, channel)
        return yield* subscribers.add(channel)
      })
    )

  return {
    subscribe: (channel) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const subscription = yield* Scope.fork(yield* Effect.scope)
          return yield* restore(Scope.provide(subscribe(channel), subscription)).pipe(
            Effect.onError((cause) => Scope.close(subscription, Exit.failCause(cause)))
          )
        })
      )
  }
})
