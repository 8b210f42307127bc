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
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { withoutCaller } from "./internal/background.ts"
import * as PgListener from "./internal/postgres/listener.ts"
import { toPubsubError } from "./internal/postgres/pubsubError.ts"
import { check } from "./internal/pubsub/limits.ts"
import * as Listener from "./internal/pubsub/listener.ts"
import * as Meters from "./internal/pubsub/meters.ts"
import { resolve } from "./internal/pubsub/options.ts"
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
   * How often the listening connection is checked. It is asked for an answer, and
   * sent a notification through the application's pool; each may take as long
   * again. So a dead connection is noticed after at most twice this time, and one
   * that lives but hears nothing after at most three times. Default 15 seconds.
   */
  readonly heartbeat?: Duration.Input | undefined
  /**
   * The longest pause between two attempts to connect again, 20 % more or less;
   * a connection lost sooner than that counts as a failed attempt.
   * The first pause is 100 ms, each next one twice as long. Default 10 seconds.
   */
  readonly maxReconnectDelay?: Duration.Input | undefined
  /**
   * Begins the names of the metrics, see `PubsubMetrics`. Two pubsubs of one
   * process need a prefix each. Default `agentapi`.
   */
  readonly metricsPrefix?: string | undefined
}

const notify = "SELECT pg_notify($1, p) FROM unnest($2::text[]) AS p"

const publishWith =
  (sql: PgClient.PgClient): Pubsub.Pubsub["Service"]["publish"] =>
  (channel, payloads) =>
    Effect.andThen(
      check(channel, payloads),
      Effect.suspend(() => {
        if (payloads.length === 0) return Effect.void
        const texts = Result.getOrThrow(PgTypes.array(payloads, PgTypes.OID.text))
        return sql
          .unsafe(notify, [PgTypes.text(channel), texts])
          .withoutTransform.pipe(Effect.mapError(toPubsubError), Effect.asVoid)
      })
    )

/**
 * Makes a `Pubsub` of the `PgClient` in context. The scope ends every
 * subscription.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Pubsub.Pubsub["Service"], Pubsub.PubsubError, PgClient.PgClient | Scope.Scope> {
  const sql = yield* PgClient.PgClient
  const timing = yield* resolve(options)
  const meters = yield* Meters.make(timing.metricsPrefix)
  const publish = publishWith(sql)
  const listener = yield* Listener.make({
    transport: PgListener.make({ connection: options.connection ?? sql.config, publish }),
    timing,
    meters,
    stayConnected: false,
    background: withoutCaller(yield* Effect.context<never>())
  })

  return Pubsub.Pubsub.of({
    publish: (channel, payloads) =>
      Effect.tap(publish(channel, payloads), () => Effect.sync(() => meters.sent(payloads))),
    subscribe: (channel) => Effect.andThen(check(channel), listener.subscribe(channel))
  })
})

/**
 * Provides the `Pubsub` in the database of the `PgClient` in context. An option
 * that makes no sense fails the layer as `Invalid`; a server that cannot be
 * reached does not.
 *
 * **Details**
 *
 * When the listening connection is lost, or lives but hears nothing, a warning
 * says so and why that may be; connecting is tried again until it succeeds, with
 * growing pauses, and then every channel is listened to again, every subscriber is
 * sent a `Resync`, and a line says that too.
 *
 * Meanwhile subscribing tries at once and fails as `Unavailable` if the server
 * cannot be reached. Whoever wants to wait tries again, and then reads what it
 * shows, since nothing tells of what was published before:
 *
 * **Example** (Subscribing as soon as the server can be reached)
 *
 * ```ts
 * import { Pubsub } from "effect-metadata-batcher"
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 *
 * const subscribe = Effect.fnUntraced(function* (channel: string) {
 *   const pubsub = yield* Pubsub.Pubsub
 *   return yield* Effect.retry(pubsub.subscribe(channel), {
 *     while: ({ reason }) => reason._tag === "Unavailable",
 *     schedule: Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("10 seconds")])
 *   })
 * })
 *
 * await Effect.runPromise(
 *   subscribe("news").pipe(Effect.scoped, Effect.provide(Pubsub.layerMemory))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Pubsub.Pubsub, Pubsub.PubsubError, PgClient.PgClient> =>
  Layer.effect(Pubsub.Pubsub, make(options))

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options>
): Layer.Layer<Pubsub.Pubsub, Pubsub.PubsubError | Config.ConfigError, PgClient.PgClient> =>
  Layer.effect(Pubsub.Pubsub, Effect.flatMap(Config.unwrap(config), make))
