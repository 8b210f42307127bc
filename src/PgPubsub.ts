/**
 * The `Pubsub` in PostgreSQL's `LISTEN` and `NOTIFY`, through `@effect/sql-pg`.
 *
 * Publishing takes a connection of the application's pool for one statement.
 * Subscribing takes none: all subscribers of all channels of a process share one
 * connection, opened for the first of them and closed after the last.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Listener from "./internal/listener.ts"
import { whyInvalid } from "./internal/notifyLimits.ts"
import { classify } from "./internal/postgres/sqlError.ts"
import * as Pubsub from "./Pubsub.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * How to connect for listening. By default as the `PgClient` does, which is
   * wrong where that goes through a pooler that shares connections between
   * transactions: name the server itself here.
   */
  readonly connection?: PgConnection.Config | undefined
  /**
   * How often the listening connection is asked whether it lives. An answer that
   * takes as long again counts as none, so a dead one is noticed after at most
   * twice this time. Default 15 seconds.
   */
  readonly heartbeat?: Duration.Input | undefined
  /**
   * The longest pause between two attempts to connect again, 20 % more or less;
   * a connection lost sooner than that counts as a failed attempt.
   * The first pause is 100 ms, each next one twice as long. Default 10 seconds.
   */
  readonly maxReconnectDelay?: Duration.Input | undefined
}

const notify = "SELECT pg_notify($1, p) FROM unnest($2::text[]) AS p"

const check = (
  channel: string,
  payloads?: ReadonlyArray<string>
): Effect.Effect<void, Pubsub.PubsubError> => {
  const why = whyInvalid(channel, payloads)
  return why === undefined ? Effect.void : Effect.fail(Pubsub.invalid(new Error(why)))
}

const toPubsubError = (error: SqlError): Pubsub.PubsubError =>
  classify(error).reason._tag === "Rejected" ? Pubsub.invalid(error) : Pubsub.unavailable(error)

/**
 * Makes a `Pubsub` of the `PgClient` in context. The scope ends every
 * subscription.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<Pubsub.Pubsub["Service"], never, PgClient.PgClient | Scope.Scope> {
  const sql = yield* PgClient.PgClient
  const listener = yield* Listener.make({
    connection: options?.connection ?? sql.config,
    heartbeat: options?.heartbeat ?? "15 seconds",
    maxReconnectDelay: options?.maxReconnectDelay ?? "10 seconds"
  })

  return Pubsub.Pubsub.of({
    publish: (channel, payloads) =>
      Effect.suspend(() => {
        if (payloads.length === 0) return check(channel)
        const texts = Result.getOrThrow(PgTypes.array(payloads, PgTypes.OID.text))
        return Effect.andThen(
          check(channel, payloads),
          Effect.mapError(sql.unsafe(notify, [PgTypes.text(channel), texts]).withoutTransform, toPubsubError)
        )
      }).pipe(Effect.asVoid),

    subscribe: (channel) =>
      Effect.andThen(check(channel), Effect.mapError(listener.subscribe(channel), toPubsubError))
  })
})

/**
 * Provides the `Pubsub` in the database of the `PgClient` in context.
 *
 * **Details**
 *
 * When the listening connection is lost, a warning says so; connecting is tried
 * again until it succeeds, with growing pauses, and then every channel is
 * listened to again, every subscriber is sent a `Resync`, and a line says that
 * too. Meanwhile subscribing tries at once and fails as `Unavailable` if the
 * server cannot be reached.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Pubsub.Pubsub, never, PgClient.PgClient> =>
  Layer.effect(Pubsub.Pubsub, make(options))
