/**
 * Packs the package as it would be published and has the tarball looked at:
 * by publint, and by Are The Types Wrong from the place of everyone who may
 * import it.
 *
 *   --release  also refuses what may not go out: no address to find the
 *              sources at, or a version that the changelog does not tell of
 *
 * The package is ESM only, hence `--profile esm-only`: `effect` is, and every
 * supported Node loads ES modules with `require` as well.
 */
import { execFile } from "node:child_process"
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join, resolve } from "node:path"
import { promisify } from "node:util"

const repository = resolve(import.meta.dirname, "..")
const bin = join(repository, "node_modules/.bin")

interface Manifest {
  readonly name: string
  readonly version: string
  readonly [field: string]: unknown
}
const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8")) as Manifest

const run = async (command: string, ...args: ReadonlyArray<string>): Promise<void> => {
  try {
    await promisify(execFile)(command, args, { cwd: repository })
  } catch (error) {
    const { stderr, stdout } = error as { readonly stdout: string; readonly stderr: string }
    throw new Error(`${basename(command)} ${args.join(" ")}\n${stdout}${stderr}`)
  }
}

const checkRelease = () => {
  const missing = ["repository", "bugs", "homepage"].filter((field) => !(field in manifest))
  if (missing.length > 0)
    throw new Error(`package.json lacks ${missing.join(", ")}: npm pkg set <field>=<address>`)
  const changelog = readFileSync(join(repository, "CHANGELOG.md"), "utf8")
  const heading = `## ${manifest.version} (`
  if (!changelog.split("\n").some((line) => line.startsWith(heading) && /\(\d{4}-\d\d-\d\d\)$/.test(line))) {
    throw new Error(`CHANGELOG.md has no "${heading}<date>)"`)
  }
}

const checkTarball = async (directory: string) => {
  await run("npm", "run", "--silent", "build")
  await run("npm", "pack", "--ignore-scripts", "--pack-destination", directory)
  const tarball = join(directory, `${manifest.name}-${manifest.version}.tgz`)
  const modules = globSync("*.ts", { cwd: join(repository, "src"), exclude: ["index.ts"] })
  const entrypoints = [".", ...modules.map((file) => `./${basename(file, ".ts")}`)]
  await Promise.all([
    run(join(bin, "publint"), tarball, "--strict"),
    run(
      join(bin, "attw"),
      ...[tarball, "--profile", "esm-only", "--no-definitely-typed", "--no-emoji", "--no-color"],
      ...["--entrypoints", ...entrypoints]
    )
  ])
}

const directory = mkdtempSync(join(tmpdir(), "effect-metadata-batcher-package-"))
try {
  if (process.argv.includes("--release")) checkRelease()
  await checkTarball(directory)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
} finally {
  rmSync(directory, { recursive: true, force: true })
}
