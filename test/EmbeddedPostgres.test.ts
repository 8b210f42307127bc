import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as Postgres from "./support/Postgres.ts"

const until = (condition: () => boolean) =>
  Effect.repeat(Effect.sync(condition), {
    until: (holds) => holds,
    schedule: Schedule.spaced("20 millis")
    // Without its data directory a server ends by itself, within a minute.
  }).pipe(Effect.timeout("10 seconds"))

const isRunning = (processId: number): boolean => {
  try {
    return process.kill(processId, 0)
  } catch {
    return false
  }
}

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("EmbeddedPostgres", (it) => {
  it.effect("keeps its data over a stop, a crash and the loss of a backend", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const sql = yield* PgClient.PgClient
      const count = sql`SELECT count(*)::int AS count FROM kept`
      yield* sql`CREATE TABLE kept AS SELECT 1`

      yield* server.stop()
      yield* Effect.flip(count)
      yield* server.start
      assert.deepStrictEqual(yield* count, [{ count: 1 }])

      yield* server.stop("immediate")
      yield* server.start
      assert.deepStrictEqual(yield* count, [{ count: 1 }])

      const [backend] = yield* sql<{ readonly pid: number }>`SELECT pg_backend_pid() AS pid`
      assert.isDefined(backend)
      yield* server.killBackend(backend.pid)
      yield* Effect.retry(count, Schedule.spaced("20 millis"))
      assert.deepStrictEqual(yield* count, [{ count: 1 }])
    })
  )
})

it.live("takes its data with it when its scope closes", () =>
  Effect.gen(function* () {
    const directory = yield* Effect.scoped(
      Effect.map(EmbeddedPostgres.make(), ({ config }) => `${config.host}`)
    )
    assert.isFalse(existsSync(directory))
  })
)

it.live("leaves nothing behind when the process that started it is killed", () =>
  Effect.gen(function* () {
    const script = `
      import * as Effect from "effect/Effect"
      import * as EmbeddedPostgres from "./src/app/EmbeddedPostgres.ts"
      const program = Effect.gen(function* () {
        const { config, processId } = yield* EmbeddedPostgres.make()
        console.log(config.host, yield* processId)
        return yield* Effect.never
      })
      await Effect.runPromise(Effect.scoped(program))`
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      cwd: new URL("..", import.meta.url),
      stdio: ["ignore", "pipe", "inherit"]
    })
    const [output] = yield* Effect.promise(() => once(child.stdout, "data"))
    const [directory = "", processId] = String(output).trim().split(" ")
    assert.isTrue(existsSync(directory))
    assert.isTrue(isRunning(Number(processId)))
    child.kill("SIGKILL")
    yield* until(() => !existsSync(directory))
    yield* until(() => !isRunning(Number(processId)))
  })
)
