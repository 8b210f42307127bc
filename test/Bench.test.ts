import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { checkOut, load, resolveRevision } from "../scripts/bench/library.ts"

const run = promisify(execFile)
const repository = path.resolve(import.meta.dirname, "..")
const bench = path.join(repository, "scripts/bench/main.ts")

interface Row {
  readonly measured: ReadonlyArray<{ readonly label: string; readonly value: { readonly median: number } }>
  readonly ratios: ReadonlyArray<{ readonly what: string; readonly value: { readonly median: number } }>
}

describe("Bench", () => {
  it("races the code of a revision beside the working tree's, turn by turn", async () => {
    const out = fs.mkdtempSync(path.join(os.tmpdir(), "bench-"))
    try {
      await run(process.execPath, [bench, "add", "--quick", "--against", "HEAD", "--out", out], {
        cwd: repository
      })
      const { measured, ratios } = JSON.parse(
        fs.readFileSync(path.join(out, "add-against.json"), "utf8")
      ) as Row
      assert.lengthOf(ratios, 2)
      for (const { value, what } of ratios) {
        assert.match(what, /, now over before$/)
        assert.isAbove(value.median, 0, what)
      }
      for (const { label, value } of measured) assert.isAbove(value.median, 0, label)
    } finally {
      fs.rmSync(out, { recursive: true, force: true })
    }
  }, 180_000)

  it("runs the revision's own code", async () => {
    const commit = resolveRevision("HEAD") ?? assert.fail("no HEAD")
    let sources: string
    {
      using revision = checkOut(commit)
      sources = revision.sources
      const then = await run("git", ["show", `${commit}:src/Store.ts`], { cwd: repository })
      assert.strictEqual(fs.readFileSync(path.join(sources, "Store.ts"), "utf8"), then.stdout)
      const [before, now] = await Promise.all([load(sources), load()])
      assert.notStrictEqual(before.MetadataBatcher.layer, now.MetadataBatcher.layer)
    }
    assert.isFalse(fs.existsSync(sources))
  })

  it("names a revision that there is not", async () => {
    const { stderr, ...error } = await run(
      process.execPath,
      [bench, "add", "--against", "no-such-revision"],
      { cwd: repository }
    ).catch((error: { readonly code: number; readonly stderr: string }) => error)
    assert.propertyVal(error, "code", 2)
    assert.strictEqual(stderr, "no revision is called no-such-revision\n")
  })
})
