/** One place in the cluster: a replica of `serve`, another one after each restart, behind two proxies. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import type { NetConnectOpts } from "node:net"
import { join } from "node:path"
import * as Proxy from "./proxy.ts"

const main = join(import.meta.dirname, "../../src/app/main.ts")

/** One process. What it has taken must not be lost if it ends well. */
export interface Life {
  readonly process: ChildProcess
  /** `killed` was given no chance. */
  end: "running" | "well" | "killed" | "badly"
  /** The last lines it printed. */
  output: string
}

export interface Replica {
  readonly name: string
  /** Where clients find it, whichever process it is. */
  readonly url: string
  readonly life: () => Life
  readonly start: () => Promise<void>
  /** SIGTERM; returns when it has ended. */
  readonly stop: () => Promise<void>
  readonly kill: () => Promise<void>
  readonly freeze: () => void
  readonly thaw: () => void
  /** Takes its database away without a word, or gives it back. */
  readonly dropDatabase: (isDropping: boolean) => void
  /** Ends its connections with the database. */
  readonly cutDatabase: () => void
  /** Ends its connections with clients. */
  readonly cutClients: () => void
  readonly close: () => Promise<void>
}

export interface Settings {
  readonly flags: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
}

/** A SIGTERM that is not followed by an end for so long counts as a fault. */
const stopMillis = 30_000

const announcedPort = (life: Life): Promise<number> =>
  new Promise((resolve, reject) => {
    const look = () => {
      const port = /page\s+http:\/\/127\.0\.0\.1:(\d+)/.exec(life.output)?.[1]
      if (port !== undefined) resolve(Number(port))
    }
    for (const stream of [life.process.stdout, life.process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        life.output = (life.output + text).slice(-4_000)
        look()
      })
    }
    life.process.once("exit", () => reject(new Error(`serve did not start: ${life.output}`)))
  })

export const make = async (name: string, database: NetConnectOpts, settings: Settings): Promise<Replica> => {
  const toDatabase = await Proxy.start(database)
  const front = await Proxy.start()
  let life: Life | undefined

  const current = (): Life => {
    if (life === undefined) throw new Error(`${name} was never started`)
    return life
  }

  const start = async () => {
    const child = spawn(process.execPath, [main, "serve", "--port", "0", ...settings.flags], {
      env: {
        ...process.env,
        ...settings.environment,
        DATABASE_URL: `postgres://postgres@127.0.0.1:${toDatabase.port}/postgres`
      },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const next: Life = { process: child, end: "running", output: "" }
    life = next
    const killWithUs = () => child.kill("SIGKILL")
    process.once("exit", killWithUs)
    child.once("exit", (code) => {
      process.off("exit", killWithUs)
      if (next.end === "running") next.end = code === 0 ? "well" : "badly"
    })
    front.point({ host: "127.0.0.1", port: await announcedPort(next) })
  }

  const kill = async () => {
    const { process: child } = current()
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, "exit")
    current().end = "killed"
    child.kill("SIGKILL")
    await ended
  }

  return {
    name,
    url: `http://127.0.0.1:${front.port}`,
    life: current,
    start,
    stop: async () => {
      const { process: child } = current()
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, "exit").then(() => true)
      child.kill("SIGTERM")
      const patience = new Promise<boolean>((resolve) => setTimeout(resolve, stopMillis, false).unref())
      if (!(await Promise.race([ended, patience]))) {
        await kill()
        current().end = "badly"
      }
    },
    kill,
    freeze: () => void current().process.kill("SIGSTOP"),
    thaw: () => void current().process.kill("SIGCONT"),
    dropDatabase: toDatabase.drop,
    cutDatabase: toDatabase.cut,
    cutClients: front.cut,
    close: async () => {
      if (life !== undefined) await kill()
      await Promise.all([toDatabase.close(), front.close()])
    }
  }
}
