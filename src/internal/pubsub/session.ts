import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { monotonicMillis } from "../monotonicMillis.ts"
import { type PubsubError, unavailable } from "./error.ts"
import type { Connection, Transport } from "./transport.ts"

/** One connection's life. It ends when it is lost, or closed because nobody is left to listen for. */
export interface Session {
  readonly connection: Connection
  /** Milliseconds of the monotonic clock. */
  readonly openedAt: number
  /** What is listened to, each with a scope that ends it. */
  readonly channels: Map<string, Scope.Closeable>
  /** Holds the scopes of the channels and the fibers that watch over the connection. */
  readonly scope: Scope.Closeable
  /** Fails when the connection is lost; succeeds when it is closed on purpose. */
  readonly ended: Deferred.Deferred<void, PubsubError>
  readonly close: Effect.Effect<void>
}

/**
 * Connects. `prepare` does what has to stand before the session counts as open;
 * `onOpen` runs right after that and is not interrupted, so that no session is
 * open and unknown. Whatever fails, the connection is closed.
 */
export const open = (options: {
  readonly transport: Transport
  readonly scope: Scope.Scope
  readonly clock: Clock.Clock
  readonly prepare: (session: Session) => Effect.Effect<void, PubsubError>
  readonly onOpen: (session: Session) => Effect.Effect<void>
}): Effect.Effect<Session, PubsubError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const connectionScope = yield* Scope.fork(options.scope)
      const scope = yield* Scope.fork(options.scope)
      // The connection closes first: a channel that is left on a dead connection
      // would wait for its answer.
      const close = Effect.andThen(Scope.close(connectionScope, Exit.void), Scope.close(scope, Exit.void))

      const connect = Effect.gen(function* () {
        const session: Session = {
          connection: yield* Scope.provide(options.transport.connect, connectionScope),
          openedAt: monotonicMillis(options.clock),
          channels: new Map(),
          scope,
          ended: Deferred.makeUnsafe(),
          close
        }
        yield* session.connection.lost.pipe(
          Effect.catch((error) => Deferred.fail(session.ended, error)),
          Effect.forkIn(scope)
        )
        yield* options.prepare(session)
        return session
      })
      return yield* restore(connect).pipe(
        Effect.onError(() => close),
        Effect.tap(options.onOpen)
      )
    })
  )

/** Runs an effect that fails as soon as the session is lost, whether or not the effect notices. */
export const whileAlive = <A, R>(
  session: Session,
  effect: Effect.Effect<A, PubsubError, R>
): Effect.Effect<A, PubsubError, R> =>
  Effect.raceFirst(
    effect,
    Effect.andThen(
      Deferred.await(session.ended),
      Effect.fail(unavailable(new Error("the connection was closed")))
    )
  )

/** Listens to one more channel. */
export const listen = (
  session: Session,
  channel: string,
  deliver: (payload: string) => void
): Effect.Effect<void, PubsubError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const channelScope = yield* Scope.fork(session.scope)
      yield* restore(
        whileAlive(session, Scope.provide(session.connection.listen(channel, deliver), channelScope))
      ).pipe(Effect.onError((cause) => Scope.close(channelScope, Exit.failCause(cause))))
      session.channels.set(channel, channelScope)
    })
  )

/** Stops listening to the channels that nobody wants any more. */
export const leave = (session: Session, isUnwanted: (channel: string) => boolean): Effect.Effect<void> =>
  Effect.forEach(
    Array.from(session.channels).filter(([channel]) => isUnwanted(channel)),
    ([channel, channelScope]) => {
      session.channels.delete(channel)
      return Scope.close(channelScope, Exit.void)
    },
    { discard: true }
  )
