/**
 * Thousands of watchers over HTTP on one server, while a fleet reports to it.
 *
 *   node scripts/soak/sse.ts [--watchers 5000] [--agents 500] [--rate 10000] [--seconds 60]
 *
 * The server, the fleet and the watchers are a process each. The same is done
 * without watchers first, to compare. Exits with 1 unless every watcher ends on
 * what the table holds, and the server read no oftener than it promises.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as Http from "node:http"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"

const main = new URL("../../src/app/main.ts", import.meta.url).pathname

const { values } = parseArgs({
  options: {
    watchers: { type: "string", default: "5000" },
    agents: { type: "string", default: "500" },
    rate: { type: "string", default: "10000" },
    seconds: { type: "string", default: "60" }
  }
})
const watcherCount = Number(values.watchers)
const agentCount = Number(values.agents)
const seconds = Number(values.seconds)

/** Between two rounds of reading, at least: the watcher's default. */
const minIntervalMs = 250

const figure = (value: number) => Math.round(value).toLocaleString("en-US")

const start = async () => {
  const child = spawn(process.execPath, [main, "serve", "--port", "0", "--flush-interval", "1s"], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  for await (const line of createInterface({ input: child.stdout })) {
    const [url] = /http:\S+(?=\/$)/.exec(line) ?? []
    if (url !== undefined) return { child, url }
  }
  throw new Error("the server did not start")
}

const stop = async (child: ChildProcess): Promise<number | null> => {
  const ended = once(child, "exit")
  child.kill("SIGTERM")
  const [code] = await ended
  return code
}

/** Reports for as long as is said, checks that the server shows it, and gives its exit code. */
const report = (url: string): Promise<number | null> => {
  const args = ["--url", url, "--agents", values.agents, "--rate", values.rate, "--duration", `${seconds}s`]
  const child = spawn(process.execPath, [main, "simulate", ...args], {
    stdio: ["ignore", "ignore", "inherit"]
  })
  return new Promise((resolve) => child.once("exit", resolve))
}

interface Watching {
  readonly agentId: string
  events: number
  /** The data of the last event, as it came. */
  last: string
}

const agent = new Http.Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY })

const watch = (url: string, agentId: string): Promise<Watching> =>
  new Promise((resolve, reject) => {
    const watching: Watching = { agentId, events: 0, last: "" }
    const request = Http.get(`${url}/api/agents/${agentId}/watch`, { agent }, (response) => {
      if (response.statusCode !== 200) return reject(new Error(`status ${response.statusCode}`))
      let buffer = ""
      response.setEncoding("utf8")
      response.on("data", (chunk: string) => {
        buffer += chunk
        const end = buffer.lastIndexOf("\n\n")
        if (end < 0) return
        for (const block of buffer.slice(0, end).split("\n\n")) {
          if (!block.includes("event: facts\n")) continue
          watching.events += 1
          watching.last = block.slice(block.indexOf("data: ") + 6)
        }
        buffer = buffer.slice(end + 2)
      })
      response.on("error", () => {})
      resolve(watching)
    })
    request.on("error", reject)
  })

interface Pulse {
  readonly at: number
  readonly rss: number
  readonly eventLoopP99Ms: number
  readonly metadata: { readonly offered: number; readonly written: number }
}

/** The server's own counters, second by second. */
const takePulses = (url: string) => {
  const pulses: Array<Pulse> = []
  const request = Http.get(`${url}/api/pulse`, { agent }, (response) => {
    const lines = createInterface({ input: response })
    // It is cut off in the end.
    lines.on("error", () => {})
    lines.on("line", (line) => {
      if (line.startsWith("data: {") && line.includes('"eventLoopP99Ms"') && !line.includes('"pulses"')) {
        pulses.push(JSON.parse(line.slice(6)))
      }
    })
    response.on("error", () => {})
  })
  request.on("error", () => {})
  return { pulses, end: () => request.destroy() }
}

const json = async <A>(url: string): Promise<A> => (await (await fetch(url)).json()) as A

const counter = async (url: string, name: string): Promise<number> => {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, "m").exec(text)?.[1] ?? 0)
}

const summarize = (what: string, pulses: ReadonlyArray<Pulse>) => {
  const [first] = pulses
  const last = pulses.at(-1)
  if (first === undefined || last === undefined) throw new Error("no pulses")
  const elapsed = (last.at - first.at) / 1_000
  const delays = pulses.map(({ eventLoopP99Ms }) => eventLoopP99Ms).sort((a, b) => a - b)
  const ingest = (last.metadata.offered - first.metadata.offered) / elapsed
  console.log(
    `${what}: ${figure(ingest)} facts/s in, ${figure((last.metadata.written - first.metadata.written) / elapsed)} rows/s out, ` +
      `RSS ${figure(Math.max(...pulses.map(({ rss }) => rss)) / 2 ** 20)} MB, ` +
      `event loop delay p99 ${figure(delays[Math.floor(delays.length / 2)] ?? 0)} ms in the median second, ${figure(delays.at(-1) ?? 0)} ms in the worst`
  )
  return ingest
}

const measure = async (url: string) => {
  const { end, pulses } = takePulses(url)
  const code = await report(url)
  end()
  return { code, pulses }
}

const faults: Array<string> = []
const { child, url } = await start()
try {
  const without = await measure(url)
  const ingestWithout = summarize("without watchers", without.pulses)

  const { agents } = await json<{ readonly agents: ReadonlyArray<{ readonly id: string }> }>(
    `${url}/api/agents?limit=${Math.min(1_000, agentCount)}`
  )
  const ids = agents.map(({ id }) => id)
  const watchings: Array<Watching> = []
  while (watchings.length < watcherCount) {
    const some = Array.from({ length: Math.min(100, watcherCount - watchings.length) }, (_, i) =>
      watch(url, ids[(watchings.length + i) % ids.length] as string)
    )
    watchings.push(...(await Promise.all(some)))
  }
  console.log(`${figure(watchings.length)} watchers on ${figure(ids.length)} agents`)

  const roundsBefore = await counter(url, "agentapi_watcher_rounds_total")
  const begun = performance.now()
  const withThem = await measure(url)
  const ingestWith = summarize("with watchers", withThem.pulses)
  // The last facts are written within the flush interval, and shown within a second of that.
  await sleep(4_000)
  const elapsed = performance.now() - begun
  const rounds = (await counter(url, "agentapi_watcher_rounds_total")) - roundsBefore

  const held = new Map<string, string>()
  for (const id of ids) {
    const { facts } = await json<{ readonly facts: ReadonlyArray<{ readonly key: string }> }>(
      `${url}/api/agents/${id}/metadata`
    )
    const byKey = (a: { readonly key: string }, b: { readonly key: string }) => (a.key < b.key ? -1 : 1)
    held.set(id, JSON.stringify([...facts].sort(byKey)))
  }
  const stale = watchings.filter(
    ({ agentId, last }) => last === "" || JSON.stringify(JSON.parse(last).facts) !== held.get(agentId)
  )
  const events = watchings.reduce((sum, watching) => sum + watching.events, 0)
  console.log(
    `${figure(events)} events, ${figure(events / (elapsed / 1_000))} per second; ` +
      `${figure(rounds)} rounds of reading in ${figure(elapsed / 1_000)} s; ingest with over without ${(ingestWith / ingestWithout).toFixed(2)}`
  )
  if (without.code !== 0 || withThem.code !== 0)
    faults.push("the fleet did not find what the server accepted")
  if (stale.length > 0) faults.push(`${stale.length} watchers did not end on what the table holds`)
  if (rounds > elapsed / minIntervalMs + 1) faults.push("it read oftener than it promises")
} finally {
  agent.destroy()
  const code = await stop(child)
  if (code !== 0) faults.push(`the server ended with ${code}`)
}
console.log(faults.length === 0 ? "PASSED" : `FAILED: ${faults.join("; ")}`)
process.exit(faults.length === 0 ? 0 : 1)
