/**
 * `migrate`: makes the tables in the database that `DATABASE_URL` names.
 *
 * @since 0.1.0
 */

import * as Console from "effect/Console"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as PgMigrations from "../PgMigrations.ts"
import * as Database from "./Database.ts"
import * as Flags from "./Flags.ts"
import { toUserError } from "./UserError.ts"

/**
 * @category commands
 * @since 0.1.0
 */
export const command = Command.make(
  "migrate",
  {
    unlogged: Flags.unlogged,
    partitioned: Flags.yes("partitioned", "Partition the statistics by day; needs PgRetention to go on")
  },
  Effect.fnUntraced(function* (options) {
    const applied = yield* Effect.provide(PgMigrations.run(options), Database.layerUrl)
    for (const [id, name] of applied) yield* Console.log(`applied ${id} ${name}`)
    if (applied.length === 0) yield* Console.log("nothing to do: the tables are there")
  }, Effect.mapError(toUserError))
).pipe(Command.withDescription("Make the tables in the database that DATABASE_URL names"))
