/** What the pages say can be done and found, can. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as BatcherMetrics from "../src/BatcherMetrics.ts"
import * as PubsubMetrics from "../src/PubsubMetrics.ts"
import * as RetentionMetrics from "../src/RetentionMetrics.ts"
import * as WatcherMetrics from "../src/WatcherMetrics.ts"
import { commandsOf, makeRunner, startOf } from "./support/Commands.ts"
import * as Databases from "./support/Databases.ts"
import { blocksOf, deadLinksOf, pages, read, repository } from "./support/Pages.ts"

const blocks = pages.flatMap((page) => blocksOf(page, read(page)))

const databases = Databases.make()
const { run, stop } = makeRunner(databases.create)

describe("Pages", () => {
  afterAll(async () => {
    const outcome = await stop()
    await databases[Symbol.asyncDispose]()
    if (outcome !== undefined) assert.strictEqual(outcome.exitCode, 0, outcome.output)
  })

  it("are found, wherever they stand", () => {
    for (const page of [
      "README.md",
      "CONTRIBUTING.md",
      "scripts/bench/README.md",
      "scripts/soak/README.md"
    ]) {
      assert.include(pages, page)
    }
  })

  it("hold code that is tried, and pictures", () => {
    for (const { language, name } of blocks) assert.include(["ts", "sh", "text", ""], language, name)
  })

  for (const page of pages) {
    it(`${page}: every link leads somewhere`, () => {
      assert.deepStrictEqual(deadLinksOf(page, read(page)), [])
    })
  }

  it("name files that are there", () => {
    for (const page of pages) {
      for (const [, file = ""] of read(page).matchAll(/`((?:src|test|scripts)\/[\w./-]+)`/g)) {
        assert.isTrue(existsSync(join(repository, file)), `${page}: ${file}`)
      }
    }
  })

  it("has its links looked at", () => {
    assert.deepStrictEqual(
      deadLinksOf("scripts/x.md", "[a](bench/README.md) [b](gone.md#c) [d](https://e.f)"),
      ["gone.md"]
    )
  })

  it("name tests that are there, for what each fault costs", () => {
    const page = "scripts/soak/README.md"
    const rows = Array.from(
      read(page).matchAll(/\[`\w+`\]\(\.\.\/\.\.\/(test\/\w+\.test\.ts)\)((?:[:,] \*[^*]+\*)+)/g)
    )
    assert.isAbove(rows.length, 40)
    for (const [, file = "", names = ""] of rows) {
      for (const [, name = ""] of names.matchAll(/\*([^*]+)\*/g)) assert.include(read(file), name, file)
    }
  })

  it("name every metric", () => {
    const prefix = "agentapi"
    const all = [
      BatcherMetrics.make({ prefix, kind: "metadata" }),
      WatcherMetrics.make({ prefix }),
      PubsubMetrics.make({ prefix }),
      RetentionMetrics.make({ prefix })
    ].flatMap((metrics) => Object.values(metrics).map(({ id }: { readonly id: string }) => id))
    const page = read("scripts/telemetry/README.md")
    for (const id of all) {
      assert.include(page, `\`${id.replace(prefix, "").replace("_metadata", "")}\``, id)
    }
  })

  it("name every option of a batcher, and every setting of serve", async () => {
    const options = read("src/internal/batcher/models.ts")
      .split("export interface Options {")[1]
      ?.split("\n}")[0]
    const names = Array.from((options ?? "").matchAll(/^ {2}readonly (\w+)\?:/gm), ([, name = ""]) => name)
    assert.include(names, "maxPendingBytes")
    for (const name of names) assert.include(read("README.md"), `| \`${name}\` |`)
    const { output } = await run({
      words: ["node", "src/app/main.ts", "serve", "--print-config"],
      environment: {}
    })
    const variables = Array.from(output.matchAll(/^(EMB_\w+)=/gm), ([, variable = ""]) => variable)
    assert.include(variables, "EMB_MAX_PENDING")
    for (const variable of variables) assert.include(read("src/app/README.md"), `\`${variable}\``)
  }, 60_000)

  it("keep the first of them short: at most 1,000 words beside code and tables", () => {
    const prose = read("README.md")
      .replaceAll(/^```[\s\S]*?^```$/gm, "")
      .replaceAll(/^\|.*$/gm, "")
      .replaceAll(/\]\([^)]*\)/g, "]")
    const words = prose.split(/\s+/).filter((word) => /\w/.test(word))
    assert.isAtMost(words.length, 1_000)
  })

  // What is the same when shortened is run once.
  const commands = blocks.filter(({ language, runs }) => language === "sh" && runs).flatMap(commandsOf)
  const outcomes = new Map<string, ReturnType<typeof run>>()
  for (const { name, text } of commands) {
    it(name, async () => {
      const start = startOf(text)
      if (start === undefined) return
      const key = JSON.stringify(start)
      const outcome = outcomes.get(key) ?? run(start)
      outcomes.set(key, outcome)
      const { exitCode, output } = await outcome
      assert.strictEqual(exitCode, 0, output)
      assert.isNotEmpty(output)
    }, 120_000)
  }

  it("reports a command that there is not", async () => {
    assert.throws(() => startOf("npm run nothing"), "package.json has no script called nothing")
    assert.throws(() => startOf("npm install left-pad"), "nothing here needs left-pad")
    assert.throws(() => startOf("npm run bench -- w3"), "the bench has no row called w3")
    assert.throws(() => startOf("npm run bench -- --slow"), "Unknown option '--slow'")
    assert.throws(() => startOf("make coffee"), "does not know how to try: make coffee")
    assert.throws(() => startOf("node scripts/soak/gone.ts"), "there is no scripts/soak/gone.ts")
    assert.throws(() => startOf("node scripts/soak/race.ts --warp"), "does not know --warp")
    assert.throws(() => startOf("curl -k http://127.0.0.1:3000/"), "does not know what curl does with -k")
    const refused = startOf("curl http://127.0.0.1:3000/api/nothing") ?? assert.fail("nothing to run")
    await run(refused).then(
      () => assert.fail("a request that is refused passes"),
      (error: Error) => assert.match(error.message, /^404 /)
    )
    const start = startOf("npm test -- NoSuchFile") ?? assert.fail("nothing to run")
    assert.strictEqual((await run(start)).output, "")
  })
})
