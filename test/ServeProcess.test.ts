/** The server as its operator runs it: a process, a database, signals and exit codes. */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { assert, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { faultsOf, stopUnderLoad } from "../scripts/soak/stop.ts"
import * as Postgres from "./support/Postgres.ts"

const main = new URL("../src/app/main.ts", import.meta.url).pathname

interface Result {
  readonly exitCode: number
  readonly output: string
}

const run = (args: ReadonlyArray<string>, environment: Record<string, string> = {}): Effect.Effect<Result> =>
  Effect.promise(async () => {
    const inherited = Object.entries(process.env).filter(([name]) => !/^(EMB_|OTEL_|DATABASE_URL)/.test(name))
    const env = { ...Object.fromEntries(inherited), ...environment }
    try {
      const { stderr, stdout } = await promisify(execFile)(process.execPath, [main, ...args], { env })
      return { exitCode: 0, output: stdout + stderr }
    } catch (error) {
      const { code, stderr, stdout } = error as { code: number; stdout: string; stderr: string }
      return { exitCode: code, output: stdout + stderr }
    }
  })

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("SIGTERM under load", (it) => {
  it.effect(
    "everything that was answered with 202 is in the table, and it ends with 0",
    () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient()
        const verdict = yield* stopUnderLoad({
          databaseUrl: `postgres://postgres@localhost/postgres?host=${sql.config.host}`,
          clients: 4,
          agentsPerClient: 10,
          millis: 1_500
        })
        assert.deepStrictEqual(faultsOf(verdict), [], verdict.output)
        assert.strictEqual(verdict.keys, 400)
        assert.match(verdict.output, /stopping: writing what is left/)
        assert.match(verdict.output, /everything that was accepted is written/)
      }),
    60_000
  )
})

const concurrent = { concurrent: true, timeout: 60_000 }

it.live(
  "says in one line what keeps it from starting",
  () =>
    Effect.gen(function* () {
      const [host, key, port, database] = yield* Effect.all(
        [
          run(["serve", "--host", "0.0.0.0"]),
          run(["serve"], { EMB_KEY: "short", DATABASE_URL: "postgres://nobody@localhost:1/x" }),
          run(["serve"], { EMB_PORT: "many" }),
          run(["serve", "--port", "0"], { DATABASE_URL: "postgres://nobody@localhost:1/x" })
        ],
        { concurrency: 2 }
      )
      assert.match(
        host.output,
        /ERROR\n {2}--host 0\.0\.0\.0: without keys it listens on the loopback interface only/
      )
      assert.match(key.output, /a token key has at least 32 bytes/)
      assert.match(port.output, /EMB_PORT/)
      for (const { exitCode, output } of [host, key, port, database]) {
        assert.strictEqual(exitCode, 1, output)
        assert.notMatch(output, /node_modules|\bat file:/)
      }
    }),
  concurrent
)

it.live(
  "prints what its flags and variables come to, and no secret",
  () =>
    Effect.gen(function* () {
      const key = (yield* run(["token", "--new-key"])).output.trim()
      const { exitCode, output } = yield* run(["serve", "--print-config", "--flush-interval", "2s"], {
        EMB_KEY: key,
        EMB_FLUSH_INTERVAL: "3s",
        EMB_MAX_PENDING: "7000",
        EMB_UNLOGGED: "true",
        DATABASE_URL: "postgres://me:password@localhost/x"
      })
      assert.strictEqual(exitCode, 0)
      const lines = output.split("\n")
      for (const line of [
        "EMB_FLUSH_INTERVAL=2000ms",
        "EMB_MAX_PENDING=7000",
        "EMB_UNLOGGED=true",
        "EMB_PORT=3000"
      ]) {
        assert.include(lines, line)
      }
      assert.notInclude(output, key)
      assert.notInclude(output, "password")
      // What it prints can be given back to it.
      const printed = lines.flatMap((line) => {
        const [, name = "", value = ""] = /^(EMB_\w+)=(.+)$/.exec(line) ?? []
        return name === "" || name === "EMB_KEY" ? [] : [[name, value] as const]
      })
      const again = yield* run(["serve", "--print-config"], {
        ...Object.fromEntries(printed),
        EMB_KEY: key,
        DATABASE_URL: "postgres://me:password@localhost/x"
      })
      assert.strictEqual(again.output, output)
    }),
  concurrent
)

it.live(
  "signs tokens, and says what a token needs",
  () =>
    Effect.gen(function* () {
      const EMB_KEY = "k".repeat(40)
      const agent = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
      const [token, noAgent, noKey, badRole, badAgent] = yield* Effect.all(
        [
          run(["token", "--role", "agent", "--agent", agent, "--expires", "1h"], { EMB_KEY }),
          run(["token", "--role", "agent"], { EMB_KEY }),
          run(["token"]),
          run(["token", "--role", "king"], { EMB_KEY }),
          run(["token", "--role", "agent", "--agent", "seven"], { EMB_KEY })
        ],
        { concurrency: 2 }
      )
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
    }),
  concurrent
)

it.live(
  "every command says what it is for",
  () =>
    Effect.gen(function* () {
      const help = yield* Effect.forEach(
        ["serve", "simulate", "watch", "token", "migrate"],
        (command) => Effect.map(run([command, "--help"]), (result) => [command, result] as const),
        { concurrency: 2 }
      )
      for (const [command, { exitCode, output }] of help) {
        assert.strictEqual(exitCode, 0)
        assert.match(output, new RegExp(`USAGE\\n {2}effect-metadata-batcher ${command}`))
      }
      const completions = yield* run(["--completions", "bash"])
      assert.match(completions.output, /simulate/)
    }),
  concurrent
)
