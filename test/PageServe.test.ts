/** The live page as a user meets it: served by `serve`, on PostgreSQL, through the bad moments of both. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Page } from "playwright-core"
import { EmbeddedPostgres } from "../src/app/EmbeddedPostgres.ts"
import * as Browser from "./support/Browser.ts"
import * as Postgres from "./support/Postgres.ts"

const main = new URL("../src/app/main.ts", import.meta.url).pathname
const agent = "0198a1b2-0000-7000-8000-00000000000a"
const key = "a-key-of-at-least-32-bytes-for-tests-only"

/** The longest that a fact waits for its batch, in the runs of this file. */
const interval = 2_000

const environment = Effect.map(EmbeddedPostgres, ({ config }) => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(OTEL_|EMB_)/.test(name))),
  DATABASE_URL: `postgres://${config.username}@localhost/postgres?host=${config.host}`
}))

/** Runs the program and gives its output by lines; a scope's end is a SIGTERM. */
const start = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  variables: Readonly<Record<string, string>> = {}
) {
  const spawner = yield* ChildProcessSpawner
  const env = { ...(yield* environment), ...variables }
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, [main, ...args], { env, extendEnv: false })
  )
  return child.all.pipe(Stream.decodeText(), Stream.splitLines)
})

/** Serves until the scope ends; gives the page's address. */
const serve = Effect.fnUntraced(function* (port: number, variables: Readonly<Record<string, string>> = {}) {
  const lines = yield* start(
    ["serve", "--port", String(port), "--flush-interval", `${interval}ms`],
    variables
  )
  const address = yield* Deferred.make<string>()
  const seen: Array<string> = []
  yield* lines.pipe(
    Stream.runForEach((line) => {
      seen.push(line)
      const url = /^page +(http\S+)/.exec(line)?.[1]
      return url === undefined ? Effect.void : Deferred.succeed(address, url)
    }),
    Effect.andThen(Effect.suspend(() => Deferred.die(address, new Error(seen.join("\n"))))),
    Effect.forkScoped
  )
  return yield* Deferred.await(address)
})

const post = async (url: string, value: string) => {
  const response = await fetch(`${url}api/agents/${agent}/metadata`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ facts: [{ key: "cpu", value }] })
  })
  assert.strictEqual(response.status, 202)
}

const shows = (page: Page, text: string | RegExp, timeout = 5_000) =>
  page.getByText(text).first().waitFor({ timeout })

const layerAll = Layer.mergeAll(Browser.layer, Postgres.layer, NodeServices.layer)

describe.skipIf(Browser.unserved !== undefined)("the page of serve", () => {
  layer(layerAll, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    it.effect(
      "shows what was posted within two intervals, and asks nothing of anyone else",
      () =>
        Effect.gen(function* () {
          const url = yield* serve(0)
          const { complaints, page, strays } = yield* Browser.open(url)
          yield* Effect.promise(async () => {
            await shows(page, "Live")
            await post(url, "12 %")
            await shows(page, "12 %", 2 * interval)
            await post(url, "34 %")
            await shows(page, "34 %", 2 * interval)
            await page.getByRole("button", { name: `Agent ${agent}` }).click()
            await page
              .getByRole("dialog")
              .getByRole("row", { name: /cpu 34 %/ })
              .waitFor()
          })
          assert.deepStrictEqual(complaints, [])
          assert.deepStrictEqual(strays, [])
        }),
      60_000
    )

    it.effect(
      "says that the server is gone, and catches up when it is back",
      () =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(yield* Effect.scope)
          const url = yield* Scope.provide(serve(0), scope)
          const { page } = yield* Browser.open(url)
          yield* Effect.promise(async () => {
            await post(url, "56 %")
            await shows(page, "56 %")
          })
          const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void))
          yield* Effect.promise(() => shows(page, /^Disconnected since/))
          yield* Fiber.join(closing)
          yield* serve(Number(new URL(url).port))
          yield* Effect.promise(async () => {
            await post(url, "78 %")
            await shows(page, "78 %", 12_000)
            await shows(page, "Live")
          })
        }),
      60_000
    )

    it.effect(
      "says that the database is away, and shows what waited when it is back",
      () =>
        Effect.gen(function* () {
          const database = yield* EmbeddedPostgres
          const url = yield* serve(0)
          const { complaints, page, strays } = yield* Browser.open(url)
          // A stream that begins while the database is away is refused, and Chromium complains of that.
          yield* Effect.promise(async () => {
            await post(url, "87 %")
            await shows(page, "87 %")
          })
          yield* database.stop()
          yield* Effect.promise(async () => {
            await post(url, "90 %")
            await shows(page, /^The database has been away since/)
          })
          // Whoever comes now is shown what the server remembers, or why it cannot.
          const late = yield* Browser.open(url)
          yield* Effect.promise(() => shows(late.page, /^(The database has been away|No news) since/, 10_000))
          yield* database.start
          yield* Effect.promise(async () => {
            await shows(page, "90 %", 15_000)
            await page
              .getByText(/^The database has been away since/)
              .first()
              .waitFor({ state: "hidden" })
            await shows(page, "Live")
            await shows(late.page, "90 %", 15_000)
          })
          assert.deepStrictEqual(complaints, [])
          assert.deepStrictEqual(strays, [])
        }),
      60_000
    )

    it.effect(
      "takes a reader's token where one is needed",
      () =>
        Effect.gen(function* () {
          const url = yield* serve(0, { EMB_KEY: key })
          const lines = yield* start(["token", "--role", "reader"], { EMB_KEY: key })
          const token = (yield* Stream.runCollect(lines)).at(-1) ?? ""
          const { complaints, page } = yield* Browser.open(url)
          yield* Effect.promise(async () => {
            const dialog = page.getByRole("dialog", { name: "This server asks for a token" })
            await dialog.getByLabel("Token").fill(token)
            await dialog.getByRole("button").click()
            await shows(page, "Live")
            await shows(page, "Database ready")
          })
          assert.deepStrictEqual(complaints, [])
        }),
      60_000
    )
  })
})
