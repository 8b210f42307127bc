/**
 * The command line: one command, and what it can be told to do.
 *
 * @since 0.1.0
 */
import * as Command from "effect/cli/Command"
import * as Migrate from "./Migrate.ts"
import * as Serve from "./Serve.ts"
import * as Simulate from "./Simulate.ts"
import * as Token from "./Token.ts"
import * as WatchCommand from "./WatchCommand.ts"

/**
 * @category commands
 * @since 0.1.0
 */
export const command = Command.make("effect-metadata-batcher").pipe(
  Command.withDescription("Newest-wins batching of agent metadata into PostgreSQL"),
  Command.withSubcommands([
    Serve.command,
    Simulate.command,
    WatchCommand.command,
    Token.command,
    Migrate.command
  ])
)
