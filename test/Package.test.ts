import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import manifest from "../package.json" with { type: "json" }
import * as Databases from "./support/Databases.ts"
import { extract } from "./support/Examples.ts"
import { repository } from "./support/Pages.ts"

const run = promisify(execFile)

/** Without their extension, as `Store` or `internal/throttle`. */
const sources = fs
  .globSync(["*.ts", "internal/**/*.ts"], { cwd: path.join(repository, "src") })
  .map((file) => file.split(path.sep).join("/").slice(0, -".ts".length))
const modules = sources.filter((source) => !source.includes("/") && source !== "index")

describe("Package", () => {
  /** Holds the packed tarball and two projects, in which it is installed. */
  let folder: string
  let packed: string
  /** Has the peer dependencies that a user would have installed. */
  let project: string
  /** Has only the one that is not optional. */
  let bare: string

  const install = (name: string, peers: ReadonlyArray<string>) => {
    const home = path.join(folder, name)
    fs.mkdirSync(path.join(home, "node_modules"), { recursive: true })
    fs.cpSync(packed, path.join(home, "node_modules/effect-metadata-batcher"), { recursive: true })
    for (const peer of peers) {
      fs.symlinkSync(path.join(repository, "node_modules", peer), path.join(home, "node_modules", peer))
    }
    fs.writeFileSync(path.join(home, "package.json"), '{ "type": "module", "private": true }')
    return home
  }

  beforeAll(async () => {
    folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "effect-metadata-batcher-package-")))
    await run("npm", ["pack", "--pack-destination", folder], { cwd: repository })
    await run("tar", ["-xzf", `effect-metadata-batcher-${manifest.version}.tgz`], { cwd: folder })
    packed = path.join(folder, "package")
    project = install("project", ["effect", "@effect", "@types"])
    bare = install("bare", ["effect"])
  }, 120_000)
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

  /** What importing each of these by name gives in one of the projects: its exports, or why there are none. */
  const importEach = async (cwd: string, names: ReadonlyArray<string>) => {
    const script = `
      const results = {}
      for (const name of ${JSON.stringify(names)}) {
        results[name] = await import(name).then(Object.keys, ({ code, message }) => [code, message].join(": "))
      }
      console.log(JSON.stringify(results))`
    const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script], { cwd })
    return JSON.parse(stdout) as Readonly<Record<string, string | ReadonlyArray<string>>>
  }

  /** The packages that a published module imports, by whatever way. */
  const packagesOf = (module: string, seen = new Set<string>()): Set<string> => {
    const file = path.join(packed, "dist", `${module}.js`)
    if (seen.has(file)) return new Set()
    seen.add(file)
    const found = new Set<string>()
    for (const [, specifier = ""] of fs
      .readFileSync(file, "utf8")
      .matchAll(/^(?:import|export) (?:.* from )?"(.+)";$/gm)) {
      if (specifier.startsWith(".")) {
        const imported = path.posix.join(path.posix.dirname(module), specifier).slice(0, -".js".length)
        for (const each of packagesOf(imported, seen)) found.add(each)
      } else {
        found.add(specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/"))
      }
    }
    return found
  }

  it("holds the library, its sources and what a reader needs, and nothing else", () => {
    const files = fs
      .globSync("**/*", { cwd: packed, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) =>
        path.relative(packed, path.join(entry.parentPath, entry.name)).split(path.sep).join("/")
      )
    const expected = [
      ...["package.json", "README.md", "CHANGELOG.md", "LICENSE"],
      // What the README shows, and the recipes.
      ...["src/app/page/screenshot.png", "src/README.md"],
      ...sources.map((source) => `src/${source}.ts`),
      ...sources.flatMap((source) =>
        ["js", "js.map", "d.ts", "d.ts.map"].map((extension) => `dist/${source}.${extension}`)
      )
    ]
    assert.sameMembers(files, expected)
  })

  it("shows nothing in its README that is not in it", () => {
    const readme = fs.readFileSync(path.join(packed, "README.md"), "utf8")
    const images = Array.from(readme.matchAll(/!\[[^\]]*\]\(([^)]+)\)|<img[^>]* src="([^"]+)"/g))
    for (const [, markdown, html] of images) {
      const source = markdown ?? html ?? ""
      assert.isTrue(/^https:/.test(source) || fs.existsSync(path.join(packed, source)), source)
    }
  })

  it("keeps the docstring of every module", () => {
    for (const module of modules) {
      const declarations = fs.readFileSync(path.join(packed, "dist", `${module}.d.ts`), "utf8")
      assert.isTrue(
        declarations.startsWith("/**"),
        `${module}.d.ts: a blank line has to follow its docstring`
      )
    }
  })

  it("exports from its root what needs nothing but effect", async () => {
    const { "effect-metadata-batcher": root } = await importEach(bare, ["effect-metadata-batcher"])
    const byPath = modules.filter((module) => /^(Pg|Redis)/.test(module))
    assert.sameMembers(
      Array.from(root ?? []),
      modules.filter((module) => !byPath.includes(module))
    )
  })

  it("names the optional package that a module lacks", async () => {
    const needs = modules.flatMap((module) =>
      Array.from(packagesOf(module), (name) => ({ specifier: `effect-metadata-batcher/${module}`, name }))
    )
    for (const { name, specifier } of needs) assert.property(manifest.peerDependencies, name, specifier)
    const optional = needs.filter(({ name }) => name !== "effect")
    assert.isNotEmpty(optional)
    const results = await importEach(
      bare,
      optional.map(({ specifier }) => specifier)
    )
    for (const { name, specifier } of optional) {
      assert.deepInclude(manifest.peerDependenciesMeta, { [name]: { optional: true } })
      assert.include(results[specifier], `Cannot find package '${name}' imported from`)
    }
  })

  it("type-checks the README's examples against the published declarations, and runs them", async () => {
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
    const examples = extract("README.md", fs.readFileSync(path.join(packed, "README.md"), "utf8"))
    for (const { code, fileName } of examples) fs.writeFileSync(path.join(project, fileName), code)
    const tsc = path.join(repository, "node_modules/typescript/bin/tsc")
    await run(process.execPath, [tsc, "-p", project]).catch((error) => assert.fail(error.stdout))
    const runnable = examples.filter(({ runs }) => runs)
    assert.isNotEmpty(runnable)
    await using databases = Databases.make()
    for (const { fileName } of runnable) {
      const env = { ...process.env, DATABASE_URL: await databases.create() }
      await run(process.execPath, [fileName], { cwd: project, env })
    }
  }, 120_000)

  it("seals its internals", async () => {
    const internals = sources.filter((source) => source.startsWith("internal/"))
    const results = await importEach(
      bare,
      internals.map((source) => `effect-metadata-batcher/${source}`)
    )
    assert.lengthOf(Object.keys(results), internals.length)
    for (const [source, result] of Object.entries(results)) {
      assert.include(result, "ERR_PACKAGE_PATH_NOT_EXPORTED", source)
    }
  })
})
