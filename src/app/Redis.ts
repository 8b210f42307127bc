/**
 * Redis for the notifications, where PostgreSQL's own are the limit.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Pubsub, PubsubError } from "../Pubsub.ts"
import * as RedisPubsub from "../RedisPubsub.ts"
import * as Flags from "./Flags.ts"
import * as UserError from "./UserError.ts"

const name = "redis-url"

/**
 * Where the server is. It may hold a password, so it is never shown.
 *
 * @category flags
 * @since 0.1.0
 */
export const url: Flag.Flag<Option.Option<Redacted.Redacted>> = Flag.Redacted(name).pipe(
  Flag.withMetavar("url"),
  Flag.withDescription(
    `Redis that carries the notifications, redis://…, rediss://… or unix:///…; without one PostgreSQL does. One with a password is better given as ${Flags.variableOf(name)}, since everybody on the machine can see flags`
  ),
  Flag.withFallbackConfig(Config.Redacted(Flags.variableOf(name))),
  Flag.optional,
  Flag.map(Option.filter((url) => Redacted.value(url) !== ""))
)

const isAddress = (text: string): boolean =>
  // A socket's path is no URL to Node.
  text.startsWith("unix:///") || (/^rediss?:\/\//.test(text) && URL.canParse(text))

/**
 * Fails, without quoting it, if the address cannot be one of Redis.
 *
 * @category checking
 * @since 0.1.0
 */
export const check = (url: Option.Option<Redacted.Redacted>): Effect.Effect<void, CliError.UserError> =>
  Option.isNone(url) || isAddress(Redacted.value(url.value))
    ? Effect.void
    : Effect.fail(
        UserError.make(
          `--${name} or ${Flags.variableOf(name)}: expected redis://host:port, rediss://… or unix:///path`
        )
      )

/**
 * The `Pubsub` in the Redis at this address. One that is away is tried again
 * until it is there.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  url: Redacted.Redacted,
  options?: RedisPubsub.Options
): Layer.Layer<Pubsub, PubsubError> =>
  Layer.unwrap(
    // Whoever does without Redis does without loading its client.
    Effect.map(
      Effect.promise(() => import("@effect/platform-node/NodeRedis")),
      (NodeRedis) =>
        RedisPubsub.layer((settings) => NodeRedis.layer({ url: Redacted.value(url), ...settings }), options)
    )
  )
