/** What the HTTP API does with what it takes, and what it says of itself. */
import { Buffer } from "node:buffer"
import { assert, it } from "@effect/vitest"
import { transformSync } from "amaro"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as TestClock from "effect/testing/TestClock"
import type { AgentId } from "../src/AgentId.ts"
import * as Facts from "../src/app/serve/Facts.ts"
import { agentIdOf } from "./support/Fakes.ts"
import { collectGarbage } from "./support/Garbage.ts"
import * as Server from "./support/Server.ts"

const agent = agentIdOf(1)

const stripTypes = (source: string): string => transformSync(source, { mode: "strip-only" }).code

const holds = Effect.fnUntraced(function* (server: Server.TestServer, agentId: AgentId) {
  yield* server.metadata.flush
  const [held] = yield* server.store.metadataOf([agentId])
  return new Map(held?.facts.map((fact) => [fact.key, fact]))
})

it.effect("takes facts of one agent, and of several at once", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const report = {
      facts: [{ key: " cpu ", value: "\n12 % " }, { key: "disk", error: " gone " }, { key: "load" }]
    }
    const one = yield* server.post(`/api/agents/${agent.toUpperCase()}/metadata`, report)
    assert.strictEqual(one.status, 202)
    assert.deepStrictEqual(yield* Server.json(one), { accepted: 3, dropped: 0 })
    const held = yield* holds(server, agent)
    assert.deepInclude(held.get("cpu"), { value: "12 %", error: "" })
    assert.deepInclude(held.get("disk"), { value: "", error: "gone" })
    assert.deepInclude(held.get("load"), { value: "", error: "" })

    const ids = Array.from({ length: 50 }, (_, i) => agentIdOf(i))
    const many = yield* server.post("/api/metadata", {
      agents: ids.map((agentId, i) => ({ agentId, facts: [{ key: "cpu", value: `${i}` }] }))
    })
    assert.deepStrictEqual(yield* Server.json(many), { accepted: 50, dropped: 0 })
    assert.strictEqual((yield* holds(server, agentIdOf(49))).get("cpu")?.value, "49")
    const nothing = yield* server.post("/api/metadata", { agents: [] })
    assert.deepStrictEqual(yield* Server.json(nothing), { accepted: 0, dropped: 0 })
  }).pipe(Effect.scoped)
)

it.effect("cuts a long value at a whole character, and replaces a long error", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const response = yield* server.post(`/api/agents/${agent}/metadata`, {
      facts: [
        { key: "fits", value: "é".repeat(1_024) },
        // The 2,048th byte is the first of two.
        { key: "long", value: `a${"é".repeat(1_024)}`, error: "hot" },
        { key: "emoji", value: `abc${"😀".repeat(600)}` },
        { key: "error", value: "5", error: "e".repeat(2_049) }
      ]
    })
    assert.strictEqual(response.status, 202)
    const held = yield* holds(server, agent)
    assert.deepInclude(held.get("fits"), { value: "é".repeat(1_024), error: "" })
    assert.deepInclude(held.get("long"), {
      value: `a${"é".repeat(1_023)}`,
      error: "value of 2049 bytes exceeded 2048 bytes"
    })
    assert.deepInclude(held.get("emoji"), { value: `abc${"😀".repeat(511)}` })
    assert.deepInclude(held.get("error"), { value: "5", error: "error of 2049 bytes exceeded 2048 bytes" })
  }).pipe(Effect.scoped)
)

it.effect("keeps nothing of a long text but what it cut out of it", () =>
  Effect.gen(function* () {
    const now = DateTime.makeUnsafe(0)
    yield* collectGarbage
    const before = process.memoryUsage().heapUsed
    const facts = Array.from({ length: 100 }, (_, i) => {
      // As a request's body gives it: one flat string, too long, or with much space around.
      const value: string = JSON.parse(
        i % 2 === 0 ? `"${i} ${"x".repeat(1_000_000)}"` : `"${" ".repeat(1_000_000)}the text of number ${i}"`
      )
      return Facts.fromReport([{ key: "a", value }], now, "server").facts[0]
    })
    yield* collectGarbage
    // A hundred slices of a megabyte would keep 100 MB alive.
    assert.isBelow(process.memoryUsage().heapUsed - before, 20_000_000)
    for (const [i, fact] of facts.entries()) {
      if (i % 2 === 0) assert.strictEqual(Buffer.byteLength(fact?.value ?? ""), 2_048)
      else assert.strictEqual(fact?.value, `the text of number ${i}`)
    }
  })
)

it.effect("stores a report of statistics once, however often it is sent", () =>
  Effect.gen(function* () {
    yield* TestClock.setTime(1_700_000_000_000)
    const server = yield* Server.start()
    const id = "0d9f3c1e-0000-4000-8000-000000000001"
    const ids = { userId: agent, templateId: agent, workspaceId: agent }
    const reports = [{ id, ...ids, rxBytes: "9007199254740993", txBytes: 5, connectionsByProto: { ssh: 1 } }]
    for (let i = 0; i < 2; i++) {
      const response = yield* server.post(`/api/agents/${agent}/stats`, { reports })
      assert.strictEqual(response.status, 202)
      assert.deepStrictEqual(yield* Server.json(response), { accepted: 1, dropped: 0 })
      yield* server.statsBatcher.flush
    }
    const rows = yield* server.stats
    assert.lengthOf(rows, 1)
    assert.deepInclude(rows[0], { id, agentId: agent, rxBytes: 9_007_199_254_740_993n, txBytes: 5n })
    assert.strictEqual(rows[0]?.createdAt.epochMilliseconds, 1_700_000_000_000)
    assert.strictEqual(rows[0]?.connectionMedianLatencyMs, -1)
  }).pipe(Effect.scoped)
)

it.effect("lists agents page by page, and shows the facts of one", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const ids = Array.from({ length: 25 }, (_, i) => agentIdOf(i)).sort()
    yield* server.post("/api/metadata", {
      agents: ids.map((agentId) => ({
        agentId,
        facts: [
          { key: "cpu", error: "no" },
          { key: "disk", value: "1" }
        ]
      }))
    })
    yield* server.metadata.flush
    const seen: Array<string> = []
    let after = ""
    do {
      const page = yield* Server.json(yield* server.fetch(`/api/agents?limit=10${after}`))
      for (const { id, ...line } of page.agents) {
        seen.push(id)
        assert.deepStrictEqual(line, { facts: 2, errors: 1, lastCollectedAt: 0 })
      }
      after = page.next === null ? "" : `&after=${page.next}`
    } while (after !== "")
    assert.deepStrictEqual(seen, ids)
    const facts = yield* Server.json(yield* server.fetch(`/api/agents/${ids[3]}/metadata?keys=disk,nothing`))
    assert.deepStrictEqual(facts, {
      agentId: ids[3],
      facts: [{ key: "disk", value: "1", error: "", collectedAt: 0 }]
    })
  }).pipe(Effect.scoped)
)

it.effect("deletes an agent with what still waits of it, and lets it report again", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const report = { facts: [{ key: "cpu", value: "1" }] }
    yield* server.post(`/api/agents/${agent}/metadata`, report)
    const signals = yield* server.pubsub.subscribe("workspace_agent_metadata_batch")
    const gone = yield* server.fetch(`/api/agents/${agent}`, { method: "DELETE" })
    assert.strictEqual(gone.status, 200)
    assert.strictEqual((yield* holds(server, agent)).size, 0)
    assert.isAtLeast((yield* Queue.takeAll(signals)).length, 1)
    const again = yield* server.fetch(`/api/agents/${agent}`, { method: "DELETE" })
    assert.deepStrictEqual(yield* Server.json(again), { deleted: 0 })
    yield* server.post(`/api/agents/${agent}/metadata`, report)
    assert.strictEqual((yield* holds(server, agent)).size, 1)
  }).pipe(Effect.scoped)
)

it.effect("says what it is, and how it is", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    assert.deepInclude(yield* Server.json(yield* server.fetch("/api/session")), {
      tokens: false,
      role: "operator",
      minIntervalMs: 1_000
    })
    const text = (path: string) =>
      Effect.flatMap(server.fetch(path), (response) => {
        assert.strictEqual(response.status, 200, path)
        assert.strictEqual(response.headers.get("x-content-type-options"), "nosniff")
        return Effect.promise(() => response.text())
      })
    assert.strictEqual(yield* text("/healthz"), "ok\n")
    assert.strictEqual(yield* text("/readyz"), "ready\n")
    assert.match(yield* text("/metrics"), /^agentapi_metadata_queue_depth \d+$/m)
    const document = JSON.parse(yield* text("/openapi.json"))
    assert.containsAllKeys(document.paths, [
      "/api/agents/{id}/metadata",
      "/api/metadata",
      "/api/agents/{id}/stats",
      "/api/agents",
      "/api/agents/{id}",
      "/api/agents/{id}/watch",
      "/api/watch",
      "/api/overview",
      "/api/pulse",
      "/api/session"
    ])
    for (const [path, methods] of Object.entries<Record<string, { readonly summary?: string }>>(
      document.paths
    )) {
      for (const [method, { summary }] of Object.entries(methods))
        assert.isString(summary, `${method} ${path}`)
    }
  }).pipe(Effect.scoped)
)

it.effect("serves the page's files and nothing else, and lets a page run only what is its own", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const page = yield* server.fetch("/")
    assert.strictEqual(page.status, 200)
    assert.match(page.headers.get("content-type") ?? "", /^text\/html/)
    const policy = page.headers.get("content-security-policy") ?? ""
    for (const directive of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]) {
      assert.include(policy, directive)
    }
    assert.notInclude(policy, "unsafe")
    const html = yield* Effect.promise(() => page.text())
    const assets = Array.from(html.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g), ([, path = ""]) => path)
    assert.isNotEmpty(assets)
    for (const path of assets) {
      const asset = yield* server.fetch(path)
      assert.strictEqual(asset.status, 200, path)
      if (path.endsWith(".ts")) {
        assert.match(asset.headers.get("content-type") ?? "", /^text\/javascript/)
        // A browser knows no types: what remains has to be JavaScript.
        const source = yield* Effect.promise(() => asset.text())
        assert.strictEqual(stripTypes(source), source)
      }
      const etag = asset.headers.get("etag") ?? ""
      const unchanged = yield* server.fetch(path, { headers: { "if-none-match": etag } })
      assert.strictEqual(unchanged.status, 304)
    }
    for (const path of ["/assets/tsconfig.json", "/assets/", "/assets", "/index.html", "/src/app/main.ts"]) {
      assert.strictEqual((yield* server.fetch(path)).status, 404, path)
    }

    // Of the page that shows the API, the scripts are within it: each is allowed by its hash.
    const docs = yield* server.fetch("/docs")
    const docsPolicy = docs.headers.get("content-security-policy") ?? ""
    assert.match(docsPolicy, /script-src 'sha256-[^']+' 'sha256-[^']+';/)
    const body = yield* Effect.promise(() => docs.text())
    assert.notMatch(body, /<(script|link|img)[^>]*(src|href)="https?:/)
  }).pipe(Effect.scoped)
)
