/**
 * The database the commands work on: the server that `DATABASE_URL` names, or
 * else one that is started for the run.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as SqlClient from "effect/sql/SqlClient"
import * as EmbeddedPostgres from "./EmbeddedPostgres.ts"
import * as UserError from "./UserError.ts"

const applicationName = "effect-metadata-batcher"

const url = Config.option(Config.NonEmptyString("DATABASE_URL"))

/**
 * Whether the database is the demo's own.
 *
 * @category accessors
 * @since 0.1.0
 */
export const isEmbedded: Effect.Effect<boolean, Config.ConfigError> = Effect.map(url, Option.isNone)

/**
 * A client of the database that `DATABASE_URL` names.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerUrl = Layer.unwrap(
  Effect.flatMap(
    url,
    Option.match({
      onNone: () => Effect.fail(UserError.make("DATABASE_URL is not set")),
      onSome: (url) => Effect.succeed(PgClient.layer({ url: Redacted.make(url), applicationName }))
    })
  )
)

const layerEmbedded = EmbeddedPostgres.layerClient({ applicationName }).pipe(
  Layer.provideMerge(EmbeddedPostgres.layer())
)

/**
 * A client of the database. With an embedded server, that is in the context too,
 * as an optional service.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = Layer.unwrap(
  Effect.map(
    isEmbedded,
    (
      isEmbedded
    ): Layer.Layer<
      PgClient.PgClient | SqlClient.SqlClient,
      Layer.Error<typeof layerEmbedded> | Layer.Error<typeof layerUrl>
    > => (isEmbedded ? layerEmbedded : layerUrl)
  )
)
