/**
 * A Redis server for a test file, on a Unix socket in a temporary folder, so that
 * no two ever clash. It needs `redis-server` on the PATH (Debian and Ubuntu:
 * `apt-get install redis-server`); `whyMissing` says so in one line.
 *
 * A small shell runs it and waits for the end of a pipe that this process holds:
 * the server goes with this process, however that ends.
 */
import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"

/** What tests that need Redis say instead of running; `undefined` where it is there. */
export const whyMissing: string | undefined =
  ChildProcess.spawnSync("redis-server", ["--version"]).error === undefined
    ? undefined
    : "left out, there is no redis-server on the PATH: apt-get install redis-server"

export class RedisServer extends Context.Service<
  RedisServer,
  {
    /** The server's Unix socket. */
    readonly path: string
    /** Starts the server after `stop` or `kill`; returns when it answers. */
    readonly start: Effect.Effect<void>
    /** Ends the server as an operator does, with SIGTERM. */
    readonly stop: Effect.Effect<void>
    /** Ends the server with SIGKILL. */
    readonly kill: Effect.Effect<void>
    /** Stops the server's clock: connections stay, and nothing is answered until `thaw`. */
    readonly freeze: Effect.Effect<void>
    readonly thaw: Effect.Effect<void>
    /** Sends one command and returns what the server answers, as it stands on the wire. */
    readonly command: (command: string) => Effect.Effect<string>
  }
>()("test/RedisServer") {}

const script = `
redis-server "$@" >/dev/null &
server=$!
echo $server
cat >/dev/null
(sleep 1; kill -9 $server) &
killer=$!
wait $server
kill $killer
`

interface Running {
  readonly shell: ChildProcess.ChildProcess
  readonly pid: number
}

const spawn = (directory: string): Promise<Running> =>
  new Promise((resolve, reject) => {
    const options = ["--port", "0", "--unixsocket", Path.join(directory, "redis.sock")]
    const storage = ["--dir", directory, "--save", "", "--appendonly", "no"]
    const shell = ChildProcess.spawn("sh", ["-c", script, "sh", ...options, ...storage], {
      stdio: ["pipe", "pipe", "ignore"]
    })
    shell.once("error", reject)
    shell.stdout.once("data", (pid) => resolve({ shell, pid: Number(pid) }))
  })

const send = (path: string, command: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect(path, () => socket.write(`${command}\r\n`))
    socket.once("data", (answer) => {
      socket.destroy()
      resolve(String(answer))
    })
    socket.once("error", reject)
  })

const make = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => FileSystem.mkdtemp(Path.join(Os.tmpdir(), "redis-"))),
    (directory) => Effect.promise(() => FileSystem.rm(directory, { recursive: true, force: true }))
  )
  const path = Path.join(directory, "redis.sock")
  let running: Running | undefined

  const start = Effect.promise(async () => {
    running = await spawn(directory)
  }).pipe(
    Effect.andThen(
      Effect.retry(
        Effect.tryPromise(() => send(path, "PING")),
        Schedule.spaced("5 millis")
      )
    ),
    Effect.orDie,
    Effect.asVoid
  )
  const signal = (name: NodeJS.Signals) =>
    Effect.sync(() => {
      if (running !== undefined) process.kill(running.pid, name)
    })
  const end = (name: NodeJS.Signals) =>
    Effect.promise(async () => {
      if (running === undefined) return
      const { pid, shell } = running
      running = undefined
      process.kill(pid, name)
      const ended = new Promise((resolve) => shell.once("exit", resolve))
      // The shell waits for this, and then for the server.
      shell.stdin?.end()
      await ended
    })

  yield* start
  yield* Effect.addFinalizer(() => end("SIGKILL"))
  return RedisServer.of({
    path,
    start,
    stop: end("SIGTERM"),
    kill: end("SIGKILL"),
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT"),
    command: (command) => Effect.promise(() => send(path, command))
  })
})

export const layer: Layer.Layer<RedisServer> = Layer.effect(RedisServer, make)
