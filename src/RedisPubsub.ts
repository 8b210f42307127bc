/**
 * The `Pubsub` in Redis, through `effect/persistence/Redis`.
 *
 * In PostgreSQL every commit that notifies takes a lock that is global to the
 * server. Where that is the limit, Redis carries the same messages over the same
 * channels. What is shown still comes from PostgreSQL: Redis keeps nothing, so
 * that losing it costs no more than a look at the tables.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import { withoutCaller } from "./internal/background.ts"
import { check } from "./internal/pubsub/limits.ts"
import * as Listener from "./internal/pubsub/listener.ts"
import * as Meters from "./internal/pubsub/meters.ts"
import { resolve } from "./internal/pubsub/options.ts"
import * as Transport from "./internal/redis/transport.ts"
import * as Pubsub from "./Pubsub.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * How often the connections are checked. Each is asked for an answer, and a
   * message to this process is published; each may take as long again, so that
   * connections that are dead, or have reached different servers, are noticed
   * after at most three times this time. Default 15 seconds.
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

/**
 * What the client is to be made with, in the shape of node-redis's options. Give
 * a client all of it, so that the pubsub learns of every lost connection and the
 * client does not connect again by itself, which would hide what was missed.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientSettings extends Transport.ClientSettings {}

/**
 * Makes a client. It is called for the first connection and after each loss; the
 * pubsub closes what it made before.
 *
 * @category models
 * @since 0.1.0
 */
export type Client = (settings: ClientSettings) => Layer.Layer<Redis.Redis, Redis.RedisError>

/**
 * Makes a `Pubsub` that connects through the clients that `client` makes. The
 * scope ends every subscription.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  client: Client,
  options: Options = {}
): Effect.fn.Return<Pubsub.Pubsub["Service"], Pubsub.PubsubError, Scope.Scope> {
  const timing = yield* resolve(options)
  const meters = yield* Meters.make(timing.metricsPrefix)
  const listener = yield* Listener.make({
    transport: Transport.make({ client, heartbeatMillis: timing.heartbeatMillis }),
    timing,
    meters,
    stayConnected: true,
    background: withoutCaller(yield* Effect.context<never>())
  })

  return Pubsub.Pubsub.of({
    publish: (channel, payloads) =>
      check(channel, payloads).pipe(
        Effect.andThen(payloads.length === 0 ? Effect.void : listener.publish(channel, payloads)),
        Effect.tap(() => Effect.sync(() => meters.sent(payloads)))
      ),
    subscribe: (channel) => Effect.andThen(check(channel), listener.subscribe(channel))
  })
})

/**
 * Provides the `Pubsub` in a Redis server, Redis 6 or newer.
 *
 * It is given how to make a client rather than a client, since it makes a new one
 * whenever a connection is lost: only so does it know of every gap, after which it
 * sends every subscriber a `Resync`. It holds one connection to publish with, one
 * for heartbeats, and one per channel that has subscribers.
 *
 * **Details**
 *
 * A server that cannot be reached does not fail the layer: it is tried at once,
 * for at most 5 seconds, and then again in the background until it succeeds.
 * Meanwhile publishing fails as `Unavailable`; subscribing tries at once and fails
 * likewise. An option that makes no sense fails the layer as `Invalid`.
 *
 * Where the server restricts channels, a user needs those it publishes on and
 * `effect_metadata_batcher_*` for heartbeats: `ACL SETUSER … &effect_metadata_batcher_*`.
 * Several payloads of one call are published by a script, with `EVALSHA`.
 *
 * **Example** (Through node-redis)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import * as RedisPubsub from "effect-metadata-batcher/RedisPubsub"
 *
 * const PubsubLive = RedisPubsub.layer((settings) =>
 *   NodeRedis.layer({ url: "redis://localhost:6379", ...settings })
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (client: Client, options?: Options): Layer.Layer<Pubsub.Pubsub, Pubsub.PubsubError> =>
  Layer.effect(Pubsub.Pubsub, make(client, options))

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  client: Client,
  config: Config.Wrap<Options>
): Layer.Layer<Pubsub.Pubsub, Pubsub.PubsubError | Config.ConfigError> =>
  Layer.effect(
    Pubsub.Pubsub,
    Effect.flatMap(Config.unwrap(config), (options) => make(client, options))
  )
