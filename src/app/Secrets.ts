/**
 * Keys and tokens as the commands get them: from a file, or from a variable.
 * There is no flag for either, since a machine's list of processes shows flags to
 * everybody on it.
 *
 * @since 0.1.0
 */
import * as FileSystem from "node:fs/promises"
import * as Config from "effect/Config"
import type * as CliError from "effect/cli/CliError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Flags from "./Flags.ts"
import * as UserError from "./UserError.ts"

/**
 * @category flags
 * @since 0.1.0
 */
export const keyFile = Flags.optionalText(
  "key-file",
  "File with the keys of tokens, one a line: the first signs, all verify. Or the variable EMB_KEY, with spaces between keys"
)

/**
 * @category flags
 * @since 0.1.0
 */
export const tokenFile = Flags.optionalText(
  "token-file",
  "File with the token to send. Or the variable EMB_TOKEN"
)

const read = (
  variable: string,
  file: Option.Option<string>
): Effect.Effect<ReadonlyArray<Redacted.Redacted>, CliError.UserError | Config.ConfigError> =>
  Effect.gen(function* () {
    const text = Option.isSome(file)
      ? yield* Effect.tryPromise({
          try: () => FileSystem.readFile(file.value, "utf8"),
          catch: (cause) => UserError.toUserError(cause instanceof Error ? cause : new Error(String(cause)))
        })
      : Option.match(yield* Config.option(Config.Redacted(variable)), {
          onNone: () => "",
          onSome: Redacted.value
        })
    return text
      .split(/\s+/)
      .filter((word) => word !== "")
      .map((word) => Redacted.make(word))
  })

/**
 * The keys of tokens, the one that signs first.
 *
 * @category reading
 * @since 0.1.0
 */
export const keys = (file: Option.Option<string>) => read("EMB_KEY", file)

/**
 * The token to send, if there is one.
 *
 * @category reading
 * @since 0.1.0
 */
export const token = (file: Option.Option<string>) => Effect.map(read("EMB_TOKEN", file), ([token]) => token)
