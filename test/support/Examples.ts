/**
 * Compiles and runs the TypeScript examples in docstrings and on the pages.
 *
 * A workspace is a temporary folder that stands in for the package: it has the
 * package's name, its exports lead to the sources, and `src` and `node_modules`
 * link to the repository's. So the compiler and Node both find
 * "effect-metadata-batcher" by their own rules, and Node strips the sources'
 * types, which it refuses to do below `node_modules`.
 */
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { blocksOf, pages, read, repository } from "./Pages.ts"

export interface Example {
  /** Where it stands: file and line of its opening fence, from 1. */
  readonly name: string
  readonly fileName: string
  /** The code, on the lines on which it stands in its source. */
  readonly code: string
  /** False for a block marked `no-run`: it needs what a test does not have. */
  readonly runs: boolean
}

/** The examples in TypeScript of a page, or of the docstrings of a source. */
export const extract = (file: string, text: string): ReadonlyArray<Example> =>
  blocksOf(file, text)
    .filter(({ language }) => language === "ts")
    .map(({ line, lines, name, runs }) => ({
      name,
      fileName: `${file.replaceAll(/[^A-Za-z0-9]+/g, "-")}-${line}.ts`,
      code: `${"\n".repeat(line)}${lines.join("\n")}\n`,
      runs
    }))

/** Every example of every page and of the library's docstrings. */
export const extractAll = (): ReadonlyArray<Example> => {
  const sources = fs
    .readdirSync(path.join(repository, "src"), { recursive: true, encoding: "utf8" })
    .map((file) => `src/${file.replaceAll(path.sep, "/")}`)
    .filter((file) => file.endsWith(".ts") && !file.startsWith("src/app/"))
    .sort()
  return [...pages, ...sources].flatMap((file) => extract(file, read(file)))
}

interface Output {
  readonly exitCode: number | string | null
  readonly output: string
}

const node = (
  cwd: string,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {}
): Promise<Output> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      args,
      // An example that does not end by itself is wrong: it left something open.
      { cwd, env: { ...process.env, ...environment }, timeout: 60_000, killSignal: "SIGKILL" },
      (_error, stdout, stderr) =>
        resolve({ exitCode: child.exitCode ?? child.signalCode, output: stdout + stderr })
    )
  })

export interface Workspace extends AsyncDisposable {
  /** What the compiler says of each example, by name; nothing for a sound one. */
  readonly compile: () => Promise<(example: Example) => string>
  readonly run: (example: Example, environment?: Readonly<Record<string, string>>) => Promise<Output>
}

export const makeWorkspace = (examples: ReadonlyArray<Example>): Workspace => {
  const folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "examples-")))
  const write = (file: string, content: unknown) =>
    fs.writeFileSync(path.join(folder, file), typeof content === "string" ? content : JSON.stringify(content))

  write("package.json", {
    name: "effect-metadata-batcher",
    type: "module",
    exports: { ".": "./src/index.ts", "./internal/*": null, "./*": "./src/*.ts" }
  })
  write("tsconfig.json", {
    extends: path.join(repository, "tsconfig.json"),
    compilerOptions: { noUnusedLocals: false, noUnusedParameters: false },
    include: ["*.ts"]
  })
  for (const linked of ["src", "node_modules"]) {
    fs.symlinkSync(path.join(repository, linked), path.join(folder, linked), "junction")
  }
  for (const example of examples) write(example.fileName, example.code)

  return {
    compile: async () => {
      const { exitCode, output } = await node(folder, [
        "node_modules/typescript/bin/tsc",
        "--pretty",
        "false"
      ])
      // The lines after a diagnostic's first are indented.
      const diagnostics = output.split(/\n(?=\S)/)
      // A broken source is for the type check to report; a compiler that checked nothing is reported here.
      if (exitCode !== 0 && !diagnostics.some((line) => /^.+\(\d+,\d+\): error /.test(line))) {
        throw new Error(`tsc ended with ${exitCode}: ${output}`)
      }
      return ({ fileName }) => diagnostics.filter((line) => line.startsWith(`${fileName}(`)).join("\n")
    },
    run: (example, environment) => node(folder, [example.fileName], environment),
    [Symbol.asyncDispose]: () => fs.promises.rm(folder, { recursive: true, force: true })
  }
}
