/** Whatever the API refuses, it refuses with the right status and one line, and the batcher goes on. */
import { connect } from "node:net"
import { assert, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"
import { type JWTPayload, SignJWT } from "jose"
import * as Tokens from "../src/app/serve/Tokens.ts"
import { agentIdOf } from "./support/Fakes.ts"
import * as Server from "./support/Server.ts"

const agent = agentIdOf(1)
const other = agentIdOf(2)
const path = `/api/agents/${agent}/metadata`
const secret = "a value that nobody may repeat"
const good = { facts: [{ key: "cpu", value: "7 %" }] }

const oldKey = "k".repeat(32)
const key = "K".repeat(32)
const hour = Duration.hours(1)

/** The status, the name and the one line. */
const assertRefused = Effect.fnUntraced(function* (
  response: Response,
  status: number,
  tag: string,
  message?: RegExp
) {
  const text = yield* Effect.promise(() => response.text())
  assert.strictEqual(response.status, status, text)
  assert.match(response.headers.get("content-type") ?? "", /^application\/json/)
  const body = JSON.parse(text)
  assert.strictEqual(body._tag, tag, text)
  assert.match(body.message, /^[^\n]{5,250}$/)
  assert.notMatch(text, /\bat (file:|\/|async )|node_modules|\.ts:\d/)
  assert.notInclude(text, secret)
  if (message !== undefined) assert.match(body.message, message)
})

/** The server takes facts, and its account holds what was accepted and nothing else. */
const assertUnharmed = Effect.fnUntraced(function* (server: Server.TestServer, token?: string | undefined) {
  const before = (yield* server.metadata.accounting).offered
  const response = yield* server.post(path, good, token)
  assert.strictEqual(response.status, 202)
  assert.deepStrictEqual(yield* Server.json(response), { accepted: 1, dropped: 0 })
  assert.strictEqual((yield* server.metadata.accounting).offered, before + 1)
  yield* server.metadata.flush
  const [held] = yield* server.store.metadataOf([agent])
  assert.strictEqual(held?.facts.find((fact) => fact.key === "cpu")?.value, "7 %")
})

it.effect("who has no token, or one that does not allow it", () =>
  Effect.gen(function* () {
    yield* TestClock.setTime(1_700_000_000_000)
    const server = yield* Server.start({ keys: [key, oldKey] })
    const { tokens } = server
    const writer = yield* tokens.sign({ role: "agent", agentId: agent, expiresIn: hour })
    const reader = yield* tokens.sign({ role: "reader", expiresIn: hour })
    const operator = yield* tokens.sign({ role: "operator", expiresIn: hour })
    const stranger = yield* (yield* Tokens.make([Redacted.make("s".repeat(32))])).sign({
      role: "operator",
      expiresIn: hour
    })
    const unauthorized = (token: string | undefined, message: RegExp) =>
      Effect.flatMap(server.post(path, good, token), (response) =>
        assertRefused(response, 401, "Unauthorized", message)
      )
    yield* unauthorized(undefined, /a token is needed/)
    yield* unauthorized("nonsense", /not valid/)
    yield* unauthorized(`${writer.slice(0, -3)}AAA`, /not valid/)
    yield* unauthorized(stranger, /none of this server's/)
    // What is not signed is no token, whatever it says of itself.
    const [, payload] = writer.split(".")
    const unsigned = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${payload}.`
    yield* unauthorized(unsigned, /not valid/)
    const forged = Buffer.from(JSON.stringify({ role: "operator", exp: 9e9, jti: "x" })).toString("base64url")
    yield* unauthorized(`${writer.split(".")[0]}.${forged}.${writer.split(".")[2]}`, /not valid/)

    const forbidden = Effect.fnUntraced(function* (
      method: string,
      path: string,
      token: string,
      message: RegExp,
      body?: unknown
    ) {
      const init = { method, headers: { "content-type": "application/json", ...Server.bearer(token) } }
      const response = yield* server.fetch(
        path,
        body === undefined ? init : { ...init, body: JSON.stringify(body) }
      )
      yield* assertRefused(response, 403, "Forbidden", message)
    })
    yield* forbidden("POST", `/api/agents/${other}/metadata`, writer, /another agent/, good)
    const both = { agents: [agent, other].map((agentId) => ({ agentId, ...good })) }
    yield* forbidden("POST", "/api/metadata", writer, /another agent/, both)
    yield* forbidden("POST", `/api/agents/${other}/stats`, writer, /another agent/, { reports: [] })
    yield* forbidden("POST", path, reader, /role reader/, good)
    yield* forbidden("GET", path, writer, /role agent/)
    yield* forbidden("GET", "/api/overview", writer, /role agent/)
    yield* forbidden("DELETE", `/api/agents/${agent}`, reader, /role reader/)
    yield* forbidden("DELETE", `/api/agents/${agent}`, writer, /role agent/)
    assert.strictEqual((yield* server.metadata.accounting).offered, 0)

    for (const path of [
      "/metrics",
      "/api/agents",
      "/api/overview",
      "/api/pulse",
      `/api/watch?agents=${agent}`
    ]) {
      yield* assertRefused(yield* server.fetch(path), 401, "Unauthorized")
    }
    for (const path of ["/healthz", "/openapi.json", "/docs", "/api/session"]) {
      assert.strictEqual((yield* server.fetch(path)).status, 200, path)
    }
    assert.strictEqual((yield* server.fetch("/metrics", { headers: Server.bearer(reader) })).status, 200)
    assert.strictEqual(
      (yield* server.fetch(`/api/agents/${agent}`, { method: "DELETE", headers: Server.bearer(operator) }))
        .status,
      200
    )
    yield* assertUnharmed(server, writer)

    // Signed with the right key, but not by us, or for ever.
    const [head = ""] = writer.split(".")
    const signed = (claims: JWTPayload) =>
      Effect.promise(() =>
        new SignJWT({ jti: "x", role: "operator", ...claims })
          .setProtectedHeader(JSON.parse(Buffer.from(head, "base64url").toString()))
          .sign(new TextEncoder().encode(key))
      )
    const [iss, exp] = ["effect-metadata-batcher", 1_800_000_000]
    yield* unauthorized(yield* signed({ iss }), /not valid/)
    yield* unauthorized(yield* signed({ exp }), /not valid/)
    yield* unauthorized(yield* signed({ exp, iss: "another" }), /not valid/)
    assert.strictEqual((yield* server.post(path, good, yield* signed({ exp, iss }))).status, 202)

    const brief = yield* tokens.sign({ role: "agent", agentId: agent, expiresIn: Duration.seconds(5) })
    yield* TestClock.adjust("4 seconds")
    yield* assertUnharmed(server, brief)
    yield* TestClock.adjust("1 second")
    yield* unauthorized(brief, /expired/)
    yield* assertUnharmed(server, writer)
  }).pipe(Effect.scoped)
)

it.effect("a token whose key was taken out, and not one before", () =>
  Effect.gen(function* () {
    const old = yield* Tokens.make([Redacted.make(oldKey)])
    const token = yield* old.sign({ role: "operator", expiresIn: hour })
    const rotating = yield* Server.start({ keys: [key, oldKey] })
    yield* assertUnharmed(rotating, token)
    const rotated = yield* Server.start({ keys: [key] })
    yield* assertRefused(yield* rotated.post(path, good, token), 401, "Unauthorized", /none of this server's/)
    assert.match((yield* Effect.flip(Tokens.make([Redacted.make("short")]))).message, /32 bytes/)
  }).pipe(Effect.scoped)
)

it.effect("what comes from elsewhere, or is no JSON", () =>
  Effect.gen(function* () {
    const server = yield* Server.start({ settings: { allowedHosts: ["facts.example.org"] } })
    const { port } = new URL(server.url)
    const type = { "content-type": "application/json" }
    const send = (headers: Record<string, string>, body = JSON.stringify(good)) =>
      server.fetch(path, { method: "POST", headers, body })

    yield* assertRefused(yield* send({ "content-type": "text/plain" }), 415, "UnsupportedMediaType")
    yield* assertRefused(
      yield* send({ "content-type": "application/x-www-form-urlencoded" }),
      415,
      "UnsupportedMediaType"
    )
    yield* assertRefused(yield* send({ ...type, "content-encoding": "gzip" }), 415, "UnsupportedMediaType")
    for (const origin of ["http://evil.example", "null", "http://127.0.0.1:1"]) {
      yield* assertRefused(yield* send({ ...type, origin }), 403, "Forbidden", /another origin/)
    }
    assert.strictEqual((yield* send({ ...type, origin: server.url })).status, 202)

    // `fetch` sends no `Host` but its own.
    const withHost = (host: string, more = "") =>
      raw(port, `GET /api/agents HTTP/1.1\r\nhost: ${host}\r\n${more}connection: close\r\n\r\n`)
    assert.match(yield* withHost("evil.example"), /^HTTP\/1.1 403 .*"Forbidden"/s)
    assert.match(
      yield* withHost(`evil.example:${port}`, "x-forwarded-host: localhost\r\n"),
      /^HTTP\/1.1 403 /
    )
    for (const host of ["localhost", `127.0.0.1:${port}`, "[::1]", "FACTS.example.org"]) {
      assert.match(yield* withHost(host), /^HTTP\/1.1 200 /, host)
    }
    assert.match(yield* raw(port, "what is this?\r\n\r\n"), /^HTTP\/1.1 400 .*"BadRequest"/s)
    assert.match(
      yield* raw(port, `GET / HTTP/1.1\r\nhost: localhost\r\nx: ${"a".repeat(20_000)}\r\n\r\n`),
      /^HTTP\/1.1 431 .*"HeadersTooLarge"/s
    )
    yield* assertUnharmed(server)
  }).pipe(Effect.scoped)
)

/** Sends these bytes and gives all that comes back until the server closes the connection. */
const raw = (port: string, text: string): Effect.Effect<string> =>
  Effect.callback((resume) => {
    let answer = ""
    const socket = connect(Number(port), "127.0.0.1", () => socket.write(text))
    socket.on("data", (chunk) => (answer += chunk))
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.succeed(answer)))
    return Effect.sync(() => socket.destroy())
  })

it.effect("what the schemas do not know", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const type = { "content-type": "application/json" }
    const send = (body: string, to = path) => server.fetch(to, { method: "POST", headers: type, body })
    const bodies: ReadonlyArray<readonly [string, RegExp]> = [
      ["", /body/],
      ["{", /JSON/],
      [`{"facts":"${secret}"}`, /body\.facts/],
      ["[1]", /body/],
      ["null", /body/],
      [JSON.stringify({ facts: [{ key: 7 }] }), /facts\.0\.key/],
      [JSON.stringify({ facts: [{ value: secret }] }), /facts\.0\.key: is missing/],
      [JSON.stringify({ facts: [{ key: "   " }] }), /facts\.0\.key/],
      [JSON.stringify({ facts: [{ key: `a\0${secret}` }] }), /facts\.0\.key/],
      [JSON.stringify({ facts: [{ key: secret.repeat(10) }] }), /127 characters/],
      [JSON.stringify({ facts: [{ key: "a", value: `${secret}\0` }] }), /without NUL/],
      [JSON.stringify({ facts: [{ key: "a", value: secret, collectedAt: -1 }] }), /milliseconds/],
      [JSON.stringify({ facts: [{ key: "a", value: secret, collectedAt: 1e15 }] }), /milliseconds/],
      [JSON.stringify({ facts: [{ key: "a", collectedAt: 0.5 }] }), /integer/],
      [`{"facts":[{"key":"a","collectedAt":1e999}]}`, /collectedAt/],
      [JSON.stringify({ facts: [{ key: "a", collectedAt: secret }] }), /collectedAt/]
    ]
    for (const [body, message] of bodies) yield* assertRefused(yield* send(body), 400, "BadRequest", message)
    yield* assertRefused(
      yield* send(JSON.stringify(good), "/api/agents/agent-7/metadata"),
      400,
      "BadRequest",
      /UUID/
    )
    yield* assertRefused(
      yield* send(JSON.stringify(good), `${path}?time=${secret}`),
      400,
      "BadRequest",
      /query\.time/
    )
    yield* assertRefused(
      yield* send(JSON.stringify({ agents: [{ agentId: "x", facts: [] }] }), "/api/metadata"),
      400,
      "BadRequest",
      /agents\.0\.agentId/
    )
    const stats = { id: agent, userId: agent, templateId: agent, workspaceId: agent }
    for (const wrong of [{ id: "x" }, { rxBytes: -1 }, { rxBytes: `${2n ** 63n}` }, { createdAt: -1 }]) {
      const body = JSON.stringify({ reports: [{ ...stats, ...wrong }] })
      yield* assertRefused(yield* send(body, `/api/agents/${agent}/stats`), 400, "BadRequest", /reports\.0/)
    }
    for (const to of [
      "/api/agents?limit=0",
      "/api/agents?limit=1001",
      "/api/agents?limit=ten",
      "/api/agents?after=x",
      "/api/watch",
      "/api/watch?agents=",
      "/api/watch?agents=x",
      `/api/watch?agents=${Array.from({ length: 201 }, (_, i) => agentIdOf(i)).join(",")}`,
      `/api/agents/${agent}/watch?intervalMs=1`,
      "/api/agents/x/watch"
    ]) {
      yield* assertRefused(yield* server.fetch(to), 400, "BadRequest")
    }
    yield* assertRefused(yield* server.fetch("/api/nothing"), 404, "NotFound")
    yield* assertRefused(yield* server.fetch(`/api/agents/${other}/metadata`), 404, "NotFound")
    yield* assertRefused(yield* server.fetch("/assets/../package.json"), 404, "NotFound")
    yield* assertRefused(yield* server.fetch("/assets/%2e%2e/serve/Tokens.ts"), 404, "NotFound")
    yield* assertRefused(yield* server.fetch("/healthz", { method: "DELETE" }), 404, "NotFound")
    assert.strictEqual((yield* server.metadata.accounting).offered, 0)
    yield* assertUnharmed(server)
  }).pipe(Effect.scoped)
)

it.effect("too much", () =>
  Effect.gen(function* () {
    const server = yield* Server.start({
      settings: { maxWatchers: 3, maxWatchersPerToken: 2 },
      batcher: { capacity: 20, maxPending: 20, maxBatchSize: 10 },
      keys: [key]
    })
    const operator = yield* server.tokens.sign({ role: "operator", expiresIn: hour })
    const type = { "content-type": "application/json", ...Server.bearer(operator) }
    const megabytes = new Uint8Array(10_000_000).fill(32)
    const large = yield* server.fetch(path, { method: "POST", headers: type, body: megabytes })
    yield* assertRefused(large, 413, "BodyTooLarge")
    const streamed = yield* server.fetch(path, {
      method: "POST",
      headers: type,
      body: new Blob([megabytes]).stream(),
      duplex: "half"
    } as RequestInit)
    yield* assertRefused(streamed, 413, "BodyTooLarge")
    assert.strictEqual((yield* server.metadata.accounting).offered, 0)

    const watchers = `/api/watch?agents=${agent}`
    const watch = Effect.fnUntraced(function* (token: string) {
      const controller = new AbortController()
      const response = yield* server.fetch(watchers, {
        headers: Server.bearer(token),
        signal: controller.signal
      })
      return { response, leave: () => controller.abort() }
    })
    const another = yield* server.tokens.sign({ role: "reader", expiresIn: hour })
    const first = yield* watch(operator)
    const second = yield* watch(operator)
    const third = yield* watch(operator)
    yield* assertRefused(third.response, 429, "TooManyWatchers", /the token has 2/)
    assert.strictEqual(third.response.headers.get("retry-after"), "1")
    const fourth = yield* watch(another)
    assert.strictEqual(fourth.response.status, 200)
    const fifth = yield* watch(another)
    yield* assertRefused(fifth.response, 429, "TooManyWatchers", /the server has 3/)
    for (const { leave } of [first, second, fourth]) leave()

    server.setAway(true)
    const many = { facts: Array.from({ length: 10_000 }, (_, i) => ({ key: `key ${i}`, value: secret })) }
    const accepted = yield* server.post(path, many, operator)
    // As many as there are keys in 6,144 bytes, less what the batcher has no room for.
    const dropped = yield* Server.json(accepted)
    assert.strictEqual(accepted.status, 429)
    assert.strictEqual(dropped._tag, "Dropped")
    assert.isAbove(dropped.dropped, 0)
    assert.strictEqual(accepted.headers.get("retry-after"), "1")
    const account = yield* server.metadata.accounting
    assert.strictEqual(account.offered, dropped.accepted + dropped.dropped)
    server.setAway(false)
    // By then it has tried again.
    yield* TestClock.adjust("5 seconds")
    yield* assertUnharmed(server, operator)
  }).pipe(Effect.scoped)
)

it.effect("more keys than fit, and takes those that do", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const many = { facts: Array.from({ length: 10_000 }, (_, i) => ({ key: `${100_000 + i}`, value: "1" })) }
    const response = yield* server.post(path, many)
    const body = yield* Server.json(response)
    assert.strictEqual(response.status, 413)
    assert.strictEqual(body._tag, "KeysTooLong")
    // Six bytes each.
    assert.strictEqual(body.accepted, 1_024)
    assert.match(body.message, /6144 bytes together; 8976 facts were left out/)
    yield* server.metadata.flush
    assert.strictEqual((yield* server.metadata.accounting).written, 1_024)
    yield* assertUnharmed(server)
  }).pipe(Effect.scoped)
)

it.effect("what takes too long to arrive", () =>
  Effect.gen(function* () {
    const server = yield* Server.start({ settings: { requestTimeoutMs: 10_000 } })
    const { port } = new URL(server.url)
    const sent = Promise.withResolvers<void>()
    let answer = ""
    const socket = connect(Number(port), "127.0.0.1", () => {
      socket.write(
        `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{`,
        () => sent.resolve()
      )
    })
    const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()))
    socket.on("data", (chunk) => (answer += chunk))
    yield* Effect.promise(() => sent.promise)
    // An answered request on another connection says that the slow one has been seen.
    yield* assertUnharmed(server)
    yield* TestClock.adjust("10 seconds")
    yield* Effect.promise(() => closed)
    assert.match(answer, /^HTTP\/1.1 408 .*"RequestTimeout"/s)
    yield* assertUnharmed(server)
  }).pipe(Effect.scoped)
)

it.effect("a server that is stopping takes nothing, and one whose database is away says so", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    server.setAway(true)
    yield* TestClock.adjust("2 seconds")
    for (const to of ["/api/agents", path, `/api/watch?agents=${agent}`, "/api/overview"]) {
      const response = yield* server.fetch(to)
      yield* assertRefused(response, 503, "Unavailable")
      assert.strictEqual(response.headers.get("retry-after"), "1")
    }
    const removal = yield* server.fetch(`/api/agents/${agent}`, { method: "DELETE" })
    yield* assertRefused(removal, 503, "Unavailable")
    const ready = yield* server.fetch("/readyz")
    assert.strictEqual(ready.status, 503)
    assert.match(
      yield* Effect.promise(() => ready.text()),
      /^the store is unavailable: connection refused\n$/
    )
    assert.strictEqual((yield* server.fetch("/healthz")).status, 200)
    // Facts wait for the database; they are no reason to refuse.
    assert.strictEqual((yield* server.post(path, good)).status, 202)
    server.setAway(false)
    yield* TestClock.adjust("5 seconds")
    assert.strictEqual((yield* server.fetch("/readyz")).status, 200)
    yield* assertUnharmed(server)

    yield* server.lifecycle.enter("stopping")
    const refused = yield* server.post(path, good)
    assert.strictEqual(refused.headers.get("connection"), "close")
    yield* assertRefused(refused, 503, "Unavailable", /stopping/)
  }).pipe(Effect.scoped)
)

const roles = ["agent", "reader", "operator"] as const

/** Who may do what; everybody else may not. */
const allowed: ReadonlyArray<readonly [operation: string, roles: ReadonlyArray<(typeof roles)[number]>]> = [
  ["POST /api/agents/{id}/metadata", ["agent", "operator"]],
  ["POST /api/metadata", ["agent", "operator"]],
  ["POST /api/agents/{id}/stats", ["agent", "operator"]],
  ["GET /api/agents", ["reader", "operator"]],
  ["GET /api/agents/{id}/metadata", ["reader", "operator"]],
  ["DELETE /api/agents/{id}", ["operator"]],
  ["GET /api/agents/{id}/watch", ["reader", "operator"]],
  ["GET /api/watch", ["reader", "operator"]],
  ["GET /api/overview", ["reader", "operator"]],
  ["GET /api/pulse", ["reader", "operator"]],
  ["GET /metrics", ["reader", "operator"]],
  // What a token allows is told to whoever has it.
  ["GET /api/session", roles]
]

it.effect("every operation to the roles that may not use it, and to no other", () =>
  Effect.gen(function* () {
    const server = yield* Server.start({ keys: [key] })
    const described = yield* Effect.flatMap(server.fetch("/openapi.json"), Server.json)
    const operations = Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.keys(methods as object).map((method) => `${method.toUpperCase()} ${path}`)
    )
    assert.sameMembers(
      allowed.map(([operation]) => operation),
      [...operations, "GET /metrics"]
    )
    // Who comes later is shown the first a little later.
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(TestClock.adjust("10 millis"), Server.turn)))
    yield* server.post(path, good, yield* server.tokens.sign({ role: "operator", expiresIn: hour }))
    for (const role of roles) {
      const ofAgent = role === "agent" ? { agentId: agent } : {}
      const token = yield* server.tokens.sign({ role, ...ofAgent, expiresIn: hour })
      for (const [operation, those] of allowed) {
        const [method = "", template = ""] = operation.split(" ")
        const to = template.replace("{id}", agent) + (template === "/api/watch" ? `?agents=${agent}` : "")
        const body = { facts: [], agents: [], reports: [] }
        const controller = new AbortController()
        const { status } = yield* server.fetch(to, {
          method,
          signal: controller.signal,
          headers: { "content-type": "application/json", ...Server.bearer(token) },
          ...(method === "POST" && { body: JSON.stringify(body) })
        })
        controller.abort()
        assert.strictEqual(status === 403, !those.includes(role), `${role} ${operation}: ${status}`)
        assert.isBelow(status, 500, `${role} ${operation}`)
        assert.notStrictEqual(status, 401, `${role} ${operation}`)
      }
    }
  }).pipe(Effect.scoped)
)

it.effect("a database that never answers is no fault of who asks", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    server.setAway("silent")
    const asking = yield* Effect.forkChild(server.fetch(path), { startImmediately: true })
    yield* server.asked
    yield* TestClock.adjust("10 seconds")
    yield* assertRefused(yield* Fiber.join(asking), 503, "Unavailable", /no answer in time/)
    assert.match(
      yield* Effect.flatMap(server.fetch("/readyz"), (response) => Effect.promise(() => response.text())),
      /did not answer within 2 seconds/
    )
    server.setAway(false)
    yield* TestClock.adjust("3 seconds")
    yield* assertUnharmed(server)
  }).pipe(Effect.scoped)
)

it.effect("tells no time but the server's own, unless the agent's is asked for", () =>
  Effect.gen(function* () {
    yield* TestClock.setTime(1_700_000_000_000)
    const server = yield* Server.start()
    const facts = { facts: [{ key: "cpu", value: "1", collectedAt: 1_600_000_000_000 }] }
    const collectedAt = Effect.gen(function* () {
      yield* server.metadata.flush
      const [held] = yield* server.store.metadataOf([agent])
      return DateTime.toEpochMillis(held?.facts[0]?.collectedAt ?? DateTime.makeUnsafe(0))
    })
    yield* server.post(`${path}?time=agent`, facts)
    assert.strictEqual(yield* collectedAt, 1_600_000_000_000)
    yield* server.post(path, facts)
    assert.strictEqual(yield* collectedAt, 1_700_000_000_000)
  }).pipe(Effect.scoped)
)
