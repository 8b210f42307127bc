/**
 * Servers from the PATH: PgBouncer and Redis. Each gets a folder of its own,
 * and is gone when it is stopped or this process ends.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { type AddressInfo, connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface Program {
  readonly port: number
  readonly process: ChildProcess
  readonly stop: () => Promise<void>
}

/** The path of a program, or undefined where there is none. */
export const find = (name: string): string | undefined => {
  try {
    const env = { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin` }
    return execFileSync("/bin/sh", ["-c", `command -v ${name}`], { encoding: "utf8", env }).trim()
  } catch {
    return undefined
  }
}

/** A port that nobody listens on. */
export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
    socket.once("connect", () => socket.destroy())
  })

/** Neither runs as root. */
export const nobody = (): { readonly uid?: number; readonly gid?: number } => {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }))
  return { uid: id("-u"), gid: id("-g") }
}

export const untilListening = async (port: number, seconds = 10): Promise<void> => {
  const end = performance.now() + seconds * 1_000
  while (!(await accepts(port))) {
    if (performance.now() > end) throw new Error(`nobody listens on port ${port}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const run = async (
  command: string,
  args: (directory: string) => ReadonlyArray<string>,
  port: number
): Promise<Program> => {
  const directory = mkdtempSync(join(tmpdir(), "program-"))
  chmodSync(directory, 0o777)
  const child = spawn(command, args(directory), { ...nobody(), cwd: directory, stdio: "ignore" })
  const kill = () => child.kill("SIGKILL")
  process.once("exit", kill)
  const stop = async () => {
    process.off("exit", kill)
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, "exit")
      child.kill("SIGCONT")
      child.kill("SIGKILL")
      await ended
    }
    rmSync(directory, { recursive: true, force: true })
  }
  try {
    await untilListening(port)
  } catch (error) {
    await stop()
    throw error
  }
  return { port, process: child, stop }
}

/** @param host of the PostgreSQL server: a folder with its socket */
export const startPgBouncer = async (options: {
  readonly program: string
  readonly host: string
  readonly mode: "transaction" | "session"
  readonly poolSize?: number
}): Promise<Program> => {
  const port = await freePort()
  return run(
    options.program,
    (directory) => {
      const file = join(directory, "pgbouncer.ini")
      writeFileSync(
        file,
        `[databases]
postgres = host=${options.host} port=5432 dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${options.mode}
default_pool_size = ${options.poolSize ?? 20}
server_round_robin = 1
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
`
      )
      return [file]
    },
    port
  )
}

/** @param at the port; any free one if none is given */
export const startRedis = async (program: string, at?: number): Promise<Program> => {
  const port = at ?? (await freePort())
  return run(
    program,
    () => ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
    port
  )
}
