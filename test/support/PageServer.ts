/**
 * A server that speaks to the page as `serve` does, with a fleet and faults at
 * will: for what a real one would have to be brought to.
 */
import { EventEmitter, once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { extname, join } from "node:path"
import { transformSync } from "amaro"
import { AgentId } from "../../src/AgentId.ts"
import type { Fact, Line, Pulse } from "../../src/app/page/Wire.ts"

const folder = join(import.meta.dirname, "../../src/app/page")

const types: { readonly [extension: string]: string } = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".ts": "text/javascript; charset=utf-8",
  ".png": "image/png"
}

const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const readFiles = () =>
  new Map(
    readdirSync(folder)
      .filter((name) => name !== "tsconfig.json")
      .map((name) => {
        const text = readFileSync(join(folder, name))
        const body = name.endsWith(".ts") ? transformSync(text.toString(), { mode: "strip-only" }).code : text
        return [name === "index.html" ? "/" : `/assets/${name}`, { body, type: types[extname(name)] ?? "" }]
      })
  )

interface Viewer {
  readonly response: ServerResponse
  /** The agents watched; `undefined`: the overview. */
  readonly agents: ReadonlyArray<string> | undefined
}

export class PageServer {
  readonly facts = new Map<string, Map<string, Fact>>()
  /** The streams that were asked for, in order. */
  readonly asked: Array<string> = []
  token: string | undefined
  /** Why no stream can begin, if none can. */
  refusal: string | undefined
  /** How many times all viewers have been told what is new. */
  told = 0
  private readonly happened = new EventEmitter()
  private storeSince: number | null = null
  private history: Array<Pulse> = []
  private viewers = new Set<Viewer>()
  private changed = new Set<string>()
  private removed = new Set<string>()
  private files = readFiles()
  private server: Server | undefined
  private timer: NodeJS.Timeout | undefined
  private port = 0

  get url(): string {
    return `http://127.0.0.1:${this.port}/`
  }

  async start(): Promise<void> {
    const server = createServer((request, response) => this.answer(request, response))
    this.server = server
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve))
    this.port = (server.address() as AddressInfo).port
    this.timer = setInterval(() => this.tick(), 1_000)
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    this.viewers.clear()
    const { server } = this
    if (server === undefined) return
    this.server = undefined
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }

  /** Lives on, but says nothing any more, as a server does that is stopped by a signal. */
  freeze(): void {
    clearInterval(this.timer)
  }

  report(agentId: string, facts: ReadonlyArray<Fact>): void {
    const held = this.facts.get(agentId) ?? new Map<string, Fact>()
    for (const fact of facts) held.set(fact.key, fact)
    this.facts.set(agentId, held)
    this.changed.add(agentId)
  }

  remove(agentId: string): void {
    this.facts.delete(agentId)
    this.removed.add(agentId)
  }

  /** Resolves once there are this many streams. */
  async whenViewers(count: number): Promise<void> {
    while (this.viewers.size !== count) await once(this.happened, "happened")
  }

  /** Resolves once all viewers have been told what is new this many times. */
  async whenTold(times: number): Promise<void> {
    while (this.told < times) await once(this.happened, "happened")
  }

  setStore(since: number | null): void {
    this.storeSince = since
    for (const viewer of this.viewers) this.send(viewer, "state", this.state())
  }

  /** Fills the charts as if the server had been running for a while. */
  setHistory(history: ReadonlyArray<Pulse>): void {
    this.history = [...history]
  }

  nextPulse: (before: Pulse | undefined, at: number) => Pulse = (before, at) => ({
    ...(before ?? quietPulse(at)),
    at
  })

  private lineOf(id: string): Line {
    const facts = [...(this.facts.get(id)?.values() ?? [])]
    return {
      id: AgentId.make(id),
      facts: facts.length,
      errors: facts.filter(({ error }) => error !== "").length,
      lastCollectedAt: Math.max(...facts.map(({ collectedAt }) => collectedAt))
    }
  }

  private state() {
    const storeError = this.storeSince === null ? null : "connection refused"
    return { storeSince: this.storeSince, staleSince: this.storeSince, storeError }
  }

  private send({ response }: Viewer, event: string, data: unknown): void {
    response.write(`event: ${event}\nid: ${Date.now()}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  private sendFacts(viewer: Viewer, agentId: string): void {
    const facts = [...(this.facts.get(agentId)?.values() ?? [])]
    this.send(viewer, "facts", { agentId, facts, staleSince: this.storeSince })
  }

  private tick(): void {
    const pulse = this.nextPulse(this.history.at(-1), Date.now())
    this.history = [...this.history, { ...pulse, storeSince: this.storeSince }].slice(-120)
    const away = this.storeSince !== null
    const agents = away ? [] : [...this.changed].filter((id) => this.facts.has(id))
    const removed = [...this.removed]
    if (!away) this.changed.clear()
    this.removed.clear()
    for (const viewer of this.viewers) {
      if (viewer.agents === undefined) {
        this.send(viewer, "pulse", pulse)
        if (agents.length + removed.length > 0) {
          this.send(viewer, "changes", { agents: agents.map((id) => this.lineOf(id)), removed })
        }
      } else {
        for (const id of [...agents, ...removed]) if (viewer.agents.includes(id)) this.sendFacts(viewer, id)
      }
    }
    this.told += 1
    this.happened.emit("happened")
  }

  private overview(viewer: Viewer): void {
    const ids = [...this.facts.keys()]
    for (let at = 0; at === 0 || at < ids.length; at += 500) {
      const agents = ids.slice(at, at + 500).map((id) => this.lineOf(id))
      this.send(viewer, "snapshot", { agents, first: at === 0, last: at + 500 >= ids.length })
    }
    this.send(viewer, "state", this.state())
    this.send(viewer, "history", { pulses: this.history })
  }

  private stream(url: URL, response: ServerResponse): void {
    this.asked.push(url.pathname + url.search)
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
    response.write("retry: 1000\n\n")
    const agents = url.searchParams.get("agents")?.split(",")
    const viewer = { response, agents }
    this.viewers.add(viewer)
    response.on("close", () => {
      this.viewers.delete(viewer)
      this.happened.emit("happened")
    })
    if (agents === undefined) this.overview(viewer)
    else for (const id of agents) this.sendFacts(viewer, id)
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", this.url)
    const file = this.files.get(url.pathname)
    const given = request.headers.authorization?.replace("Bearer ", "")
    const allowed = this.token === undefined || given === this.token
    const json = (status: number, body: unknown) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
    if (file !== undefined) {
      response
        .writeHead(200, {
          "content-type": file.type,
          "content-security-policy": policy,
          "cache-control": "no-cache"
        })
        .end(file.body)
    } else if (url.pathname === "/api/session") {
      if (given !== undefined && !allowed) return void json(401, { message: "The token is not valid." })
      json(200, {
        tokens: this.token !== undefined,
        role: allowed ? "operator" : null,
        version: "0.1.0",
        flushIntervalMs: 5_000
      })
    } else if (!allowed) json(401, { message: "The token is not valid." })
    else if (this.refusal !== undefined) json(503, { message: this.refusal })
    else if (["/api/overview", "/api/watch"].includes(url.pathname)) this.stream(url, response)
    else json(404, { message: "There is no such thing." })
  }
}

const none = { count: 0, rows: 0 }

const nothing = {
  offered: 0,
  queued: 0,
  pending: 0,
  inFlight: 0,
  written: 0,
  superseded: 0,
  unchanged: 0,
  dropped: 0,
  refused: 0,
  discarded: 0
}

/** The pulse of a server that has done nothing yet. */
export const quietPulse = (at: number): Pulse => ({
  at,
  metadata: nothing,
  stats: nothing,
  watchers: 1,
  rss: 100_000_000,
  eventLoopP99Ms: 12,
  batches: { capacity: none, scheduled: none, manual: none, shutdown: none },
  writeMs: { p50: null, p95: null, count: 0 },
  capacity: 2_500,
  maxPending: 50_000,
  storeSince: null,
  storeError: null
})
