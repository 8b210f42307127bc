/**
 * Runs the commands that a page tells its reader to type, as they stand but
 * shorter: a demo is interrupted, a soak only says what it would do, tests are
 * listed, and of other scripts the arguments are read. Requests are sent to one
 * server. What only `.ci/run` can run has to stand there.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import manifest from "../../package.json" with { type: "json" }
import { argumentsOf } from "../../scripts/bench/arguments.ts"
import { type Block, read, repository } from "./Pages.ts"

export interface Command {
  readonly name: string
  readonly text: string
}

/** The commands of a block in `sh`, one a line; several joined by `&&` are several. */
export const commandsOf = (block: Block): ReadonlyArray<Command> =>
  block.lines
    .join("\n")
    .replaceAll(/\\\n\s*/g, "")
    .split(/\n|&&/)
    .map((text) => text.replace(/(^|\s)#\s.*$/, "").trim())
    .filter((text) => text !== "")
    .map((text) => ({ name: `${block.name} ${text}`, text }))

interface Start {
  readonly words: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  /** Whether it goes on until it is interrupted. */
  readonly interrupt?: boolean
  /** Whether a database of the tests' server will do, where a reader's would start a server. */
  readonly takesDatabase?: boolean
}

interface Request {
  readonly path: string
  readonly init: RequestInit
}

/** How a command is tried: by a process, by a request, or not, if neither is needed. */
export const startOf = (command: string): Start | Request | undefined => {
  const all = Array.from(
    command.matchAll(/"([^"]*)"|'([^']*)'|\S+/g),
    ([word, double, single]) => double ?? single ?? word
  )
  const first = all.findIndex((word) => !/^[A-Z_]+=/.test(word))
  const environment = Object.fromEntries(all.slice(0, first).map((word) => word.split(/=(.*)/, 2)))
  const words = resolve(all.slice(first))
  if (words === undefined) return undefined
  if (words[0] === "curl") return requestOf(words.slice(1))
  if (isBench(words) || isScript(words)) return undefined
  const shorter = shorten(words)
  if (shorter === undefined) throw new Error(`test/support/Commands.ts does not know how to try: ${command}`)
  return { ...shorter, environment }
}

/** The command that npm would run; nothing for what has run before any test can. */
const resolve = (words: ReadonlyArray<string>): ReadonlyArray<string> | undefined => {
  const [program, verb = "", ...rest] = words
  if (program !== "npm") return words
  if (verb === "ci") return undefined
  if (verb === "install") {
    const known = { [manifest.name]: "", ...manifest.peerDependencies, ...manifest.devDependencies }
    const unknown = rest.filter((name) => !name.startsWith("-") && !(name in known))
    if (unknown.length > 0) throw new Error(`nothing here needs ${unknown.join(", ")}`)
    return undefined
  }
  const [name = "", ...flags] = verb === "run" ? rest : [verb, ...rest]
  const script = (manifest.scripts as Readonly<Record<string, string>>)[name]
  if (script === undefined) throw new Error(`package.json has no script called ${name}`)
  if (read(".ci/run").split("\n").includes(words.join(" "))) return undefined
  return [...script.replace(/^exec /, "").split(" "), ...flags.filter((flag) => flag !== "--")]
}

/** Whether it is a bench that can be run, as `Bench.test.ts` runs one. */
const isBench = ([program, script, ...args]: ReadonlyArray<string>): boolean => {
  if (program !== "node" || script !== "scripts/bench/main.ts") return false
  const { unknown } = argumentsOf(args)
  if (unknown.length > 0) throw new Error(`the bench has no row called ${unknown.join(", ")}`)
  return true
}

/** Whether it is a script that takes minutes. It has to be there, and to know what it is given. */
const isScript = ([program, script = "", ...args]: ReadonlyArray<string>): boolean => {
  if (program !== "node" || !/^scripts\/.*\.ts$/.test(script) || script === "scripts/soak/main.ts")
    return false
  if (!existsSync(join(repository, script))) throw new Error(`there is no ${script}`)
  const source = read(script)
  for (const flag of args.filter((word) => word.startsWith("--"))) {
    const isKnown = source.includes(flag) || new RegExp(`\\b"?${flag.slice(2)}"?: \\{ type:`).test(source)
    if (!isKnown) throw new Error(`${script} does not know ${flag}`)
  }
  return true
}

/** What `curl` would send. */
const requestOf = (words: ReadonlyArray<string>): Request => {
  const headers = new Headers()
  let url: URL | undefined
  let method: string | undefined
  let body: string | undefined
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? ""
    if (!word.startsWith("-")) url = new URL(word)
    else if (word === "-N") continue
    else {
      const value = words[++i] ?? ""
      if (word === "-H") headers.append(...(value.split(/: */, 2) as [string, string]))
      else if (word === "-X") method = value
      else if (word === "-d") body = value
      else throw new Error(`test/support/Commands.ts does not know what curl does with ${word}`)
    }
  }
  if (url === undefined) throw new Error("curl needs an address")
  const init = {
    headers,
    method: method ?? (body === undefined ? "GET" : "POST"),
    ...(body !== undefined && { body })
  }
  return { path: url.pathname + url.search, init }
}

const shorten = (words: ReadonlyArray<string>): Omit<Start, "environment"> | undefined => {
  const [program = "", ...rest] = words
  const [script] = rest
  if (program === "vitest") {
    // Without the name of a test to look for, nothing but the files need be found.
    const list = rest.includes("-t") ? ["list"] : ["list", "--filesOnly"]
    return {
      words: ["node", "node_modules/vitest/vitest.mjs", ...list, ...rest.filter((word) => word !== "run")]
    }
  }
  if (program !== "node") return undefined
  if (script === "src/app/main.ts") {
    // The outage is that of a server of its own. One more starts one: what the README begins with.
    const isOwn =
      rest.includes("--outage") || rest.join(" ") === manifest.scripts.start.replace("exec node ", "")
    return { words, interrupt: true, takesDatabase: !isOwn }
  }
  if (script === "scripts/soak/main.ts") return { words: [...words, "--dry-run"] }
  return undefined
}

export interface Outcome {
  readonly exitCode: number | string | null
  readonly output: string
}

/** The first that a server answers, and whether it was content. */
const send = async (origin: string, { init, path }: Request): Promise<string> => {
  const response = await fetch(`${origin}${path}`, init)
  const reader = response.body?.getReader()
  const first = await reader?.read()
  await reader?.cancel()
  const text = `${response.status} ${Buffer.from(first?.value ?? []).toString("utf8")}`
  if (!response.ok) throw new Error(text)
  return text
}

/** Starts a process; `onOutput` is told all that it has printed, each time it prints. */
const launch = (
  { environment, words }: Start,
  onOutput: (output: string, child: ChildProcess) => void
): { readonly child: ChildProcess; readonly outcome: Promise<Outcome> } => {
  const [program = "", ...args] = words
  const inherited = Object.entries(process.env).filter(([name]) => !/^(OTEL_|DATABASE_URL|VITEST)/.test(name))
  const child = spawn(program === "node" ? process.execPath : program, args, {
    cwd: repository,
    // Any free port, whatever else is served on this machine.
    env: { ...Object.fromEntries(inherited), EMB_PORT: "0", ...environment },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let output = ""
  child.stderr.on("data", (chunk) => {
    output += chunk
  })
  child.stdout.on("data", (chunk) => {
    output += chunk
    onOutput(output, child)
  })
  const outcome = new Promise<Outcome>((done, reject) => {
    child.once("error", reject)
    child.once("close", (exitCode, signal) => done({ exitCode: exitCode ?? signal, output }))
  })
  return { child, outcome }
}

const run = (start: Start): Promise<Outcome> => {
  let isInterrupted = false
  const { child, outcome } = launch(start, (_, child) => {
    if (!start.interrupt || isInterrupted) return
    isInterrupted = true
    // It has said something, so it has started; a little later it is at work.
    setTimeout(() => child.kill("SIGINT"), 1_000)
  })
  const patience = setTimeout(() => child.kill("SIGKILL"), 90_000)
  return outcome.finally(() => clearTimeout(patience))
}

/**
 * Tries commands. The server that requests go to is started for the first of
 * them. `createDatabase` answers the address of an empty database.
 */
export const makeRunner = (createDatabase: () => Promise<string>) => {
  let server: Promise<{ readonly origin: string; readonly stop: () => Promise<Outcome> }> | undefined
  const serve = async () => {
    const { promise, reject, resolve } = Promise.withResolvers<string>()
    const { child, outcome } = launch(
      {
        words: ["node", "src/app/main.ts", "serve"],
        environment: { DATABASE_URL: await createDatabase() }
      },
      (output) => {
        const [, origin] = /^page +(\S+)\/$/m.exec(output) ?? []
        if (origin !== undefined) resolve(origin)
      }
    )
    outcome.then(({ output }) => reject(new Error(output)), reject)
    return {
      origin: await promise,
      stop: () => {
        child.kill("SIGINT")
        return outcome
      }
    }
  }
  return {
    run: async (start: Start | Request): Promise<Outcome> => {
      if ("path" in start) {
        server ??= serve()
        const { origin } = await server
        return { exitCode: 0, output: await send(origin, start) }
      }
      if (!start.takesDatabase) return run(start)
      const environment = { DATABASE_URL: await createDatabase(), ...start.environment }
      return run({ ...start, environment })
    },
    /** Ends the server, if there is one, and gives back how it ended. */
    stop: async (): Promise<Outcome | undefined> => (await server)?.stop()
  }
}
