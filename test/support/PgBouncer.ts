/** PgBouncer in transaction mode in front of a test's server, where it is installed. */
import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

export const version: string | undefined = (() => {
  try {
    return /PgBouncer (\S+)/.exec(
      ChildProcess.execFileSync("pgbouncer", ["--version"], { encoding: "utf8" })
    )?.[1]
  } catch {
    return undefined
  }
})()

if (version === undefined) {
  console.warn("left out: what needs a real PgBouncer (get it with: apt-get install pgbouncer)")
}

/** Starts it with so few sessions that clients have to share them, and says how to connect. */
export const make = Effect.fnUntraced(function* (server: PgClient.PgPoolConfig, sessions = 2) {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => FileSystem.mkdtemp(Path.join(Os.tmpdir(), "pgbouncer-"))),
    (directory) => Effect.promise(() => FileSystem.rm(directory, { recursive: true, force: true }))
  )
  const config = Path.join(directory, "pgbouncer.ini")
  yield* Effect.promise(async () => {
    await FileSystem.writeFile(Path.join(directory, "users.txt"), '"postgres" ""\n')
    await FileSystem.writeFile(
      config,
      `[databases]
* = host=${server.host} port=${server.port ?? 5432}
[pgbouncer]
listen_port = ${server.port ?? 5432}
listen_addr =
unix_socket_dir = ${directory}
auth_type = trust
auth_file = ${directory}/users.txt
pool_mode = transaction
default_pool_size = ${sessions}
`
    )
    await FileSystem.chmod(directory, 0o777)
  })
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      ChildProcess.spawn("pgbouncer", [...(process.getuid?.() === 0 ? ["-u", "nobody"] : []), config], {
        stdio: "ignore"
      })
    ),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("close", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const socket = Path.join(directory, `.s.PGSQL.${server.port ?? 5432}`)
  yield* Effect.promise(() =>
    FileSystem.access(socket).then(
      () => true,
      () => false
    )
  ).pipe(
    Effect.repeat({ until: (isThere) => isThere, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("5 seconds"),
    Effect.orDie
  )
  return { ...server, host: directory }
})
