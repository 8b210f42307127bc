/**
 * A server that gets SIGTERM while agents report to it. What it answered with
 * 202 has to be in the table, or something newer under the same key: looked up
 * by somebody else, once it has ended.
 */
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

const main = new URL("../../src/app/main.ts", import.meta.url).pathname

export interface Options {
  readonly databaseUrl: string
  /** Clients that post one request after the other. */
  readonly clients: number
  readonly agentsPerClient: number
  /** How long they post before the signal, at least: each agent has reported by then. */
  readonly millis: number
}

export interface Verdict {
  readonly exitCode: number | null
  /** Facts answered with 202. */
  readonly accepted: number
  /** Requests that were refused, or not answered, after the signal. */
  readonly refused: number
  /** Keys whose value in the table is older than one that was answered with 202. */
  readonly lost: number
  readonly keys: number
  /** From the signal to the end. */
  readonly stopMillis: number
  readonly output: string
}

const keys = Array.from({ length: 10 }, (_, i) => `key_${i}`)

const agentIdOf = (agent: number): string => `00000000-0000-4000-9000-${agent.toString(16).padStart(12, "0")}`

/** Starts one on a free port; gives where it is, what it says, and its exit code in the end. */
export const startServer = async (databaseUrl: string, args: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, [main, "serve", "--port", "0", ...args], {
    env: { ...process.env, DATABASE_URL: databaseUrl },
    stdio: ["ignore", "pipe", "inherit"]
  })
  const lines: Array<string> = []
  const url = Promise.withResolvers<string>()
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve))
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line)
    const [address] = /http:\S+(?=\/$)/.exec(line) ?? []
    if (address !== undefined) url.resolve(address)
  })
  ended.then(() => url.reject(new Error(`the server did not start:\n${lines.join("\n")}`)))
  return { child, ended, lines, url: await url.promise }
}

interface Client {
  readonly url: string
  readonly agents: ReadonlyArray<string>
  readonly isStopping: () => boolean
  /** Each agent has reported. */
  readonly allReported: () => void
}

/** Posts counters that only grow, until the server does not take them. Gives the last that it took of each agent. */
const report = async ({ agents, allReported, isStopping, url }: Client) => {
  const accepted = new Map<string, number>()
  let facts = 0
  let refused = 0
  for (let counter = 1; ; counter++) {
    const agentId = agents[counter % agents.length] as string
    try {
      const response = await fetch(`${url}/api/agents/${agentId}/metadata`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ facts: keys.map((key) => ({ key, value: `${counter}` })) })
      })
      await response.arrayBuffer()
      if (response.status === 202) {
        accepted.set(agentId, counter)
        facts += keys.length
        if (accepted.size === agents.length) allReported()
      } else refused += 1
      if (response.status !== 202 && isStopping()) return { accepted, facts, refused }
    } catch (error) {
      if (!isStopping()) throw error
      return { accepted, facts, refused: refused + 1 }
    }
  }
}

const runLoad = async ({ agentsPerClient, clients, databaseUrl, millis }: Options) => {
  const { child, ended, lines, url } = await startServer(databaseUrl, ["--flush-interval", "300ms"])
  let isStopping = false
  const reported: Array<Promise<void>> = []
  const working = Array.from({ length: clients }, (_, client) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    reported.push(promise)
    return report({
      url,
      agents: Array.from({ length: agentsPerClient }, (_, i) => agentIdOf(client * agentsPerClient + i)),
      isStopping: () => isStopping,
      allReported: resolve
    })
  })
  const pause = new Promise((resolve) => setTimeout(resolve, millis))
  // A client ends before the signal only by failing.
  await Promise.race([Promise.all([pause, ...reported]), ...working])
  const signalled = performance.now()
  isStopping = true
  child.kill("SIGTERM")
  const [exitCode, reports] = await Promise.all([ended, Promise.all(working)])
  return {
    exitCode,
    reports,
    stopMillis: Math.round(performance.now() - signalled),
    output: lines.join("\n")
  }
}

/** One server, one signal. */
export const stopUnderLoad = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Verdict, SqlError, SqlClient.SqlClient> {
  const sql = yield* SqlClient.SqlClient
  yield* Effect.ignore(sql`TRUNCATE workspace_agent_metadata`)
  const { exitCode, output, reports, stopMillis } = yield* Effect.promise(() => runLoad(options))
  const rows = yield* sql<{ readonly agent: string; readonly key: string; readonly value: string }>`
    SELECT workspace_agent_id AS agent, key, value FROM workspace_agent_metadata`
  const held = new Map(rows.map(({ agent, key, value }) => [`${agent} ${key}`, Number(value)]))
  let lost = 0
  for (const { accepted } of reports) {
    for (const [agent, counter] of accepted) {
      lost += keys.filter((key) => (held.get(`${agent} ${key}`) ?? 0) < counter).length
    }
  }
  const sum = (of: "facts" | "refused") => reports.reduce((total, report) => total + report[of], 0)
  return {
    exitCode,
    accepted: sum("facts"),
    refused: sum("refused"),
    lost,
    keys: held.size,
    stopMillis,
    output
  }
})

/** What is not as it should be. */
export const faultsOf = ({ accepted, exitCode, lost }: Verdict): ReadonlyArray<string> => [
  ...(exitCode === 0 ? [] : [`exit code ${exitCode}`]),
  ...(lost === 0 ? [] : [`${lost} keys hold less than was accepted`]),
  ...(accepted > 0 ? [] : ["nothing was accepted"])
]
