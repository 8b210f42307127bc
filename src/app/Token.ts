/**
 * `token`: signs a token, or makes the key that signs them.
 *
 * @since 0.1.0
 */
import * as Console from "effect/Console"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { AgentId } from "../AgentId.ts"
import * as Flags from "./Flags.ts"
import * as Secrets from "./Secrets.ts"
import * as Tokens from "./serve/Tokens.ts"
import * as UserError from "./UserError.ts"

const flags = {
  keyFile: Secrets.keyFile,
  role: Flag.Literals("role", ["agent", "reader", "operator"]).pipe(
    Flag.withDescription(
      "agent: writes what one agent reports. reader: reads. operator: both, for all agents, and deletes (default reader)"
    ),
    Flag.withDefault("reader")
  ),
  agent: Flags.optionalText("agent", "The agent's id, for the role agent"),
  expires: Flags.duration("expires", "30d", "How long the token is valid"),
  newKey: Flag.Boolean("new-key").pipe(
    Flag.withDescription("Print a new key instead, to put into the key file"),
    Flag.withDefault(false)
  )
} as const

const decodeAgentId = (text: string) =>
  Effect.mapError(Schema.decodeUnknownEffect(AgentId)(text), () =>
    UserError.make("--agent: expected the agent's id, a UUID")
  )

/**
 * @category commands
 * @since 0.1.0
 */
export const command = Command.make(
  "token",
  flags,
  Effect.fnUntraced(function* ({ agent, expires, keyFile, newKey, role }) {
    if (newKey) return yield* Console.log(yield* Tokens.randomKey)
    if (role === "agent" && Option.isNone(agent)) {
      return yield* UserError.make("--agent: the role agent needs the agent's id")
    }
    const tokens = yield* Tokens.make(yield* Secrets.keys(keyFile))
    if (!tokens.needed) {
      return yield* UserError.make(
        "there is no key: give --key-file or set EMB_KEY; token --new-key makes one"
      )
    }
    const agentId = role === "agent" && Option.isSome(agent) ? yield* decodeAgentId(agent.value) : undefined
    yield* Console.log(yield* tokens.sign({ role, agentId, expiresIn: expires }))
  }, Effect.mapError(UserError.toUserError))
).pipe(
  Command.withDescription("Sign a token for an agent, a reader or an operator"),
  Command.withExamples([
    {
      command: "token --new-key > key",
      description: "Make a key, to give to serve and to token as --key-file"
    },
    {
      command: "token --key-file key --role reader",
      description: "A token for the live page, valid for 30 days"
    },
    {
      command:
        "token --key-file key --role agent --agent 3f2504e0-4f89-41d3-9a0c-0305e82c3301 --expires 365d",
      description: "A token with which one agent reports"
    }
  ])
)
