import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import type { PubsubError } from "../pubsub/error.ts"
import type { Connection, Transport } from "../pubsub/transport.ts"
import { toPubsubError } from "./pubsubError.ts"

export interface Options {
  readonly connection: PgConnection.Config
  /** Publishes through the application's pool. */
  readonly publish: Connection["publish"]
}

/** `LISTEN` on a connection of its own. */
export const make = (options: Options): Transport => {
  const config: PgConnection.Config = {
    ...options.connection,
    keepAlive: options.connection.keepAlive ?? "10 seconds",
    applicationName: "effect-metadata-batcher/listen",
    // Makes statements interruptible, and there is nothing to share.
    multiplex: false
  }
  return {
    connect: connect(config, options.publish),
    whyUnheard:
      "the connection that listens may go through a pooler that shares connections between transactions, " +
      "or reach another database than the pool that publishes, or a server that is no longer the primary"
  }
}

const connect = Effect.fnUntraced(function* (
  config: PgConnection.Config,
  publish: Connection["publish"]
): Effect.fn.Return<Connection, PubsubError, Scope.Scope> {
  // Closes after the connection, which then has nobody left to send anything to.
  const pinScope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  const connection = yield* PgConnection.make(config).pipe(
    Effect.flatMap((connection) => Scope.provide(connection.pin, pinScope)),
    Effect.mapError(toPubsubError)
  )
  const lost = Deferred.makeUnsafe<never, PubsubError>()
  return {
    publish,
    probe: Effect.asVoid(Effect.mapError(connection.query("SELECT 1"), toPubsubError)),
    lost: Deferred.await(lost),
    listen: (channel, deliver) =>
      connection.listen(channel).pipe(
        Effect.mapError(toPubsubError),
        Effect.flatMap((notifications) => Effect.forkScoped(pump(notifications, deliver, lost))),
        Effect.asVoid
      )
  }
})

/** Hands on what arrives. The queue fails when the connection is lost. */
const pump = (
  notifications: Queue.Dequeue<PgConnection.Notification, SqlError>,
  deliver: (payload: string) => void,
  lost: Deferred.Deferred<never, PubsubError>
) =>
  Queue.take(notifications).pipe(
    Effect.flatMap(({ payload }) => Effect.sync(() => deliver(payload))),
    Effect.forever,
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
      return Deferred.fail(lost, toPubsubError(Cause.squash(cause)))
    })
  )
