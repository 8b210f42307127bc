/** What the commands make of their flags and variables, and what they say. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Commands from "../src/app/Commands.ts"

interface Result {
  readonly exitCode: number
  readonly output: string
}

/** As `main.ts` runs them, in the test's process. */
const run = (
  args: ReadonlyArray<string>,
  environment: Record<string, string> = {}
): Effect.Effect<Result> => {
  const lines: Array<string> = []
  const print = (...parts: ReadonlyArray<unknown>) => void lines.push(parts.join(" "))
  return Command.runWith(Commands.command, { version: "0" })(args).pipe(
    Effect.provide(NodeServices.layer),
    Effect.provideService(Console.Console, { ...console, log: print, error: print }),
    Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: environment }))),
    Effect.exit,
    Effect.map((exit) => ({
      exitCode: Exit.isSuccess(exit) ? 0 : 1,
      output: [...lines, ...(Exit.isFailure(exit) ? [Cause.pretty(exit.cause)] : [])].join("\n")
    }))
  )
}

it.live("says in one line what keeps it from starting", () =>
  Effect.gen(function* () {
    const [host, redis, scheme, age, key, port, database] = yield* Effect.all([
      run(["serve", "--host", "0.0.0.0"]),
      run(["serve", "--redis-url", "redis://me:hunter2@localhost:many"]),
      run(["serve"], { EMB_REDIS_URL: "http://me:hunter2@localhost" }),
      run(["serve"], { EMB_RETAIN_AGENTS: "for ever" }),
      run(["serve"], { EMB_KEY: "short", DATABASE_URL: "postgres://nobody@localhost:1/x" }),
      run(["serve"], { EMB_PORT: "many" }),
      run(["migrate"])
    ])
    assert.match(
      host.output,
      /ERROR\n {2}--host 0\.0\.0\.0: without keys it listens on the loopback interface only/
    )
    for (const { output } of [redis, scheme]) {
      assert.match(output, /--redis-url or EMB_REDIS_URL: expected redis:\/\//)
      assert.notInclude(output, "hunter2")
    }
    assert.match(age.output, /retain-agents.*a duration such as/s)
    assert.match(key.output, /a token key has at least 32 bytes/)
    assert.match(port.output, /EMB_PORT/)
    for (const { exitCode, output } of [host, redis, scheme, age, key, port, database]) {
      assert.strictEqual(exitCode, 1, output)
    }
  })
)

it.live("prints what its flags and variables come to, and no secret", () =>
  Effect.gen(function* () {
    const key = (yield* run(["token", "--new-key"])).output.trim()
    const args = ["--flush-interval", "2s", "--retain-stats", "1d"]
    const { exitCode, output } = yield* run(["serve", "--print-config", ...args], {
      EMB_KEY: key,
      EMB_FLUSH_INTERVAL: "3s",
      EMB_MAX_PENDING: "7000",
      EMB_UNLOGGED: "true",
      EMB_REDIS_URL: "redis://me:password@localhost",
      DATABASE_URL: "postgres://me:password@localhost/x"
    })
    assert.strictEqual(exitCode, 0)
    const lines = output.split("\n")
    for (const line of [
      "EMB_FLUSH_INTERVAL=2000ms",
      "EMB_MAX_PENDING=7000",
      "EMB_UNLOGGED=true",
      "EMB_REDIS_URL=<redacted>",
      "EMB_RETAIN_STATS=86400000ms",
      "EMB_RETAIN_AGENTS=",
      "EMB_PORT=3000"
    ]) {
      assert.include(lines, line)
    }
    assert.include((yield* run(["serve", "--print-config"])).output.split("\n"), "EMB_REDIS_URL=")
    assert.notInclude(output, key)
    assert.notInclude(output, "password")
    // What it prints can be given back to it.
    const printed = lines.flatMap((line) => {
      const [, name = "", value = ""] = /^(EMB_\w+)=(.+)$/.exec(line) ?? []
      return name === "" || value.startsWith("<") ? [] : [[name, value] as const]
    })
    const again = yield* run(["serve", "--print-config"], {
      ...Object.fromEntries(printed),
      EMB_KEY: key,
      EMB_REDIS_URL: "redis://me:password@localhost",
      DATABASE_URL: "postgres://me:password@localhost/x"
    })
    assert.strictEqual(again.output, output)
  })
)

it.live("signs tokens, and says what a token needs", () =>
  Effect.gen(function* () {
    const EMB_KEY = "k".repeat(40)
    const agent = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    const [token, noAgent, noKey, badRole, badAgent] = yield* Effect.all([
      run(["token", "--role", "agent", "--agent", agent, "--expires", "1h"], { EMB_KEY }),
      run(["token", "--role", "agent"], { EMB_KEY }),
      run(["token"]),
      run(["token", "--role", "king"], { EMB_KEY }),
      run(["token", "--role", "agent", "--agent", "seven"], { EMB_KEY })
    ])
    assert.strictEqual(token.exitCode, 0, token.output)
    const [, payload = ""] = token.output.trim().split(".")
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString())
    assert.deepInclude(claims, { role: "agent", sub: agent, iss: "effect-metadata-batcher" })
    assert.strictEqual(claims.exp - claims.iat, 3_600)
    assert.match(noAgent.output, /--agent: the role agent needs the agent's id/)
    assert.match(noKey.output, /there is no key: give --key-file or set EMB_KEY/)
    assert.match(badRole.output, /agent.*reader.*operator/)
    assert.match(badAgent.output, /--agent: expected the agent's id, a UUID/)
    for (const { exitCode } of [noAgent, noKey, badRole, badAgent]) assert.strictEqual(exitCode, 1)
  })
)

it.live("every command says what it is for", () =>
  Effect.gen(function* () {
    const help = yield* Effect.forEach(["serve", "simulate", "watch", "token", "migrate"], (command) =>
      Effect.map(run([command, "--help"]), (result) => [command, result] as const)
    )
    for (const [command, { exitCode, output }] of help) {
      assert.strictEqual(exitCode, 0)
      assert.match(output, new RegExp(`USAGE\\n {2}effect-metadata-batcher ${command}`))
    }
    const serve = help.map(([, { output }]) => output).find((output) => output.includes("--redis-url"))
    assert.match(serve ?? "", /--retain-stats.*kept for ever without it/s)
    assert.match(serve ?? "", /--retain-agents/)
    const completions = yield* run(["--completions", "bash"])
    assert.match(completions.output, /simulate/)
    assert.match(completions.output, /--flush-interval/)
  })
)
