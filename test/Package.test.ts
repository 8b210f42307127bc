import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { extract } from "./support/Examples.ts"

const run = promisify(execFile)
const repository = path.resolve(import.meta.dirname, "..")

// The packed tarball in an empty project, beside the peer dependencies a user would have installed.
describe("Package", () => {
  let project: string

  beforeAll(async () => {
    project = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "effect-metadata-batcher-package-")))
    const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", project], {
      cwd: repository
    })
    const packed = JSON.parse(stdout.slice(stdout.search(/^[[{]/m))) as unknown
    const [{ filename }] = Object.values(packed as Record<string, { readonly filename: string }>) as [
      { readonly filename: string }
    ]
    const home = path.join(project, "node_modules/effect-metadata-batcher")
    fs.mkdirSync(home, { recursive: true })
    await run("tar", ["-xzf", path.join(project, filename), "-C", home, "--strip-components=1"])
    for (const peer of ["effect", "@effect", "@types"]) {
      fs.symlinkSync(path.join(repository, "node_modules", peer), path.join(project, "node_modules", peer))
    }
    fs.writeFileSync(path.join(project, "package.json"), '{ "type": "module", "private": true }')
    fs.writeFileSync(
      path.join(project, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          target: "ES2024",
          module: "NodeNext",
          strict: true,
          exactOptionalPropertyTypes: true,
          noEmit: true,
          types: ["node"],
          skipLibCheck: false
        }
      })
    )
    const examples = extract("README.md", fs.readFileSync(path.join(repository, "README.md"), "utf8"))
    examples.forEach(({ code }, index) => {
      fs.writeFileSync(path.join(project, `example${index}.ts`), code)
    })
    fs.writeFileSync(
      path.join(project, "runs.json"),
      JSON.stringify(examples.flatMap(({ runs }, index) => (runs ? [`example${index}.ts`] : [])))
    )
  }, 120_000)
  afterAll(() => fs.rmSync(project, { recursive: true, force: true }))

  it("type-checks the README's examples against the published declarations", async () => {
    await run(process.execPath, [
      path.join(repository, "node_modules/typescript/bin/tsc"),
      "-p",
      project
    ]).catch((error) => assert.fail(error.stdout))
  }, 60_000)

  it("runs the README's examples", async () => {
    const runnable = JSON.parse(fs.readFileSync(path.join(project, "runs.json"), "utf8")) as Array<string>
    assert.isNotEmpty(runnable)
    for (const example of runnable) await run(process.execPath, [example], { cwd: project })
  }, 60_000)

  it("seals its internals", async () => {
    const script = 'await import("effect-metadata-batcher/internal/engine")'
    const error = await run(process.execPath, ["--input-type=module", "-e", script], { cwd: project }).catch(
      (error) => error
    )
    assert.include(String(error.stderr), "ERR_PACKAGE_PATH_NOT_EXPORTED")
  })
})
