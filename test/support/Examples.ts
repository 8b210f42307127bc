/**
 * Compiles and runs the TypeScript examples in docstrings and the README.
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

const repository = path.resolve(import.meta.dirname, "../..")

export interface Example {
  /** Where it stands: file and line of its opening fence, from 1. */
  readonly name: string
  readonly fileName: string
  /** The code, on the lines on which it stands in its source. */
  readonly code: string
  /** False for a block marked `no-run`: a fragment, or one that needs a database. */
  readonly runs: boolean
}

export const extract = (file: string, text: string): ReadonlyArray<Example> => {
  const examples: Array<Example> = []
  const lines = text.split(/\r?\n/)
  for (let start = 0; start < lines.length; start++) {
    const fence = /^(\s*(?:\* )?)```ts(?: (.*))?$/.exec(lines[start] ?? "")
    if (fence === null) continue
    const indent = fence[1]?.length ?? 0
    const length = lines.slice(start + 1).findIndex((line) => line.slice(indent).trimEnd() === "```")
    if (length === -1) throw new Error(`${file}:${start + 1}: the block does not end`)
    const body = lines.slice(start + 1, start + 1 + length).map((line) => line.slice(indent))
    examples.push({
      name: `${file}:${start + 1}`,
      fileName: `${file.replaceAll(/[^A-Za-z0-9]+/g, "-")}-${start + 1}.ts`,
      code: `${"\n".repeat(start + 1)}${body.join("\n")}\n`,
      runs: !(fence[2] ?? "").split(" ").includes("no-run")
    })
    start += length + 1
  }
  return examples
}

/** Every example of the README and of the library's docstrings. */
export const extractAll = (): ReadonlyArray<Example> => {
  const sources = fs
    .readdirSync(path.join(repository, "src"), { recursive: true, encoding: "utf8" })
    .map((file) => `src/${file.replaceAll(path.sep, "/")}`)
    .filter((file) => file.endsWith(".ts") && !file.startsWith("src/app/"))
    .sort()
  return ["README.md", ...sources].flatMap((file) =>
    extract(file, fs.readFileSync(path.join(repository, file), "utf8"))
  )
}

interface Output {
  readonly exitCode: number | string | null
  readonly output: string
}

const node = (cwd: string, args: ReadonlyArray<string>): Promise<Output> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      args,
      // An example that does not end by itself is wrong: it left something open.
      { cwd, timeout: 20_000, killSignal: "SIGKILL" },
      (_error, stdout, stderr) =>
        resolve({ exitCode: child.exitCode ?? child.signalCode, output: stdout + stderr })
    )
  })

export interface Workspace extends AsyncDisposable {
  /** What the compiler says of each example, by name; nothing for a sound one. */
  readonly compile: () => Promise<(example: Example) => string>
  readonly run: (example: Example) => Promise<Output>
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
    run: (example) => node(folder, [example.fileName]),
    [Symbol.asyncDispose]: () => fs.promises.rm(folder, { recursive: true, force: true })
  }
}
