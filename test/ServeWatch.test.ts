/** Whoever watches over HTTP sees the newest, at the pace promised, and can come back. */
import { assert, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { AgentId } from "../src/AgentId.ts"
import * as AgentIdChunks from "../src/AgentIdChunks.ts"
import { Caller } from "../src/app/api/Security.ts"
import * as Client from "../src/app/Client.ts"
import * as Lines from "../src/app/serve/Lines.ts"
import * as Overview from "../src/app/serve/Overview.ts"
import * as Watchers from "../src/app/serve/Watchers.ts"
import { metadataBatchChannel } from "../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../src/MetadataWatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf } from "./support/Fakes.ts"
import * as Server from "./support/Server.ts"

const agent = agentIdOf(1)
const other = agentIdOf(2)

const report = Effect.fnUntraced(function* (
  server: Server.TestServer,
  agentId: AgentId,
  value: string,
  error = ""
) {
  const response = yield* server.post(`/api/agents/${agentId}/metadata`, {
    facts: [{ key: "cpu", value, error }]
  })
  assert.strictEqual(response.status, 202)
  yield* server.metadata.flush
})

const open = Effect.fnUntraced(function* (
  server: Server.TestServer,
  path: string,
  headers: Record<string, string> = {}
) {
  const response = yield* server.fetch(path, { headers })
  assert.strictEqual(response.status, 200)
  assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
  assert.strictEqual(response.headers.get("cache-control"), "no-store")
  return Server.events(response)
})

it.effect("an agent's facts at once, then at most one event a second, the last of which is the newest", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    yield* report(server, agent, "first")
    const next = yield* open(server, `/api/agents/${agent}/watch`)
    const begun = yield* Server.nextOf(next, "facts")
    assert.deepStrictEqual(begun.data, {
      agentId: agent,
      facts: [{ key: "cpu", value: "first", error: "", collectedAt: 0 }],
      staleSince: null
    })
    const seconds = 4
    const seen = yield* Effect.forkChild(
      Effect.gen(function* () {
        let count = 0
        while (true) {
          count += 1
          const { data } = yield* Server.nextOf(next, "facts")
          if (data.facts[0].value === "last") return count
        }
      })
    )
    for (let i = 0; i < seconds * 10; i++) {
      yield* report(server, agent, `${i}`)
      yield* TestClock.adjust("100 millis")
    }
    yield* report(server, agent, "last")
    yield* TestClock.adjust("2 seconds")
    assert.isAtMost(yield* Fiber.join(seen), seconds + 2)
  }).pipe(Effect.scoped)
)

it.effect("more often, and only some keys, for whom it asks", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    yield* server.post("/api/metadata", {
      agents: [agent, other].map((agentId) => ({
        agentId,
        facts: ["cpu", "disk", "load"].map((key) => ({ key, value: "1" }))
      }))
    })
    yield* server.metadata.flush
    const next = yield* open(
      server,
      `/api/watch?agents=${agent},${other},${agent}&keys=load,cpu&intervalMs=250`
    )
    const seen = [yield* Server.nextOf(next, "facts"), yield* Server.nextOf(next, "facts")]
    assert.deepStrictEqual(seen.map(({ data }) => data.agentId).sort(), [agent, other].sort())
    for (const { data } of seen) {
      assert.deepStrictEqual(
        data.facts.map(({ key }: { key: string }) => key),
        ["cpu", "load"]
      )
    }
    yield* report(server, agent, "2")
    yield* TestClock.adjust("250 millis")
    assert.strictEqual((yield* Server.nextOf(next, "facts")).data.facts[0].value, "2")
  }).pipe(Effect.scoped)
)

it.effect("who comes back is not told what he knows, and is told what he does not", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    yield* report(server, agent, "1")
    yield* report(server, other, "1")
    const path = `/api/watch?agents=${agent},${other}`
    const next = yield* open(server, path)
    yield* Server.nextOf(next, "facts")
    const { id = "" } = yield* Server.nextOf(next, "facts")

    const again = yield* open(server, path, { "last-event-id": id })
    assert.strictEqual((yield* Server.nextOf(again, "state")).event, "state")
    yield* report(server, other, "2")
    yield* TestClock.adjust("2 seconds")
    const changed = yield* Server.nextOf(again, "facts")
    assert.strictEqual(changed.data.agentId, other)
    assert.strictEqual(changed.data.facts[0].value, "2")

    const late = yield* open(server, path, { "last-event-id": id })
    const missed = [yield* Server.nextOf(late, "facts"), yield* Server.nextOf(late, "facts")]
    assert.deepStrictEqual(missed.map(({ data }) => data.facts[0].value).sort(), ["1", "2"])
    assert.deepInclude(
      missed.map((event) => event.id),
      changed.id
    )
  }).pipe(Effect.scoped)
)

it.effect("a comment every 15 seconds, and how soon to come back for whom EventSource speaks", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    const next = yield* open(server, "/api/pulse", { accept: "text/event-stream" })
    assert.strictEqual((yield* next)?.text, "retry: 2000")
    assert.strictEqual((yield* next)?.event, "state")
    assert.strictEqual((yield* next)?.event, "history")
    let comments = 0
    const heard = yield* Effect.forkChild(
      Effect.gen(function* () {
        for (let pulses = 0; pulses < 29; ) {
          const { event, text } = (yield* next) ?? assert.fail("it ended")
          if (event === "pulse") pulses += 1
          if (text === ": alive") comments += 1
        }
      })
    )
    yield* TestClock.adjust("29 seconds")
    yield* Fiber.join(heard)
    assert.strictEqual(comments, 1)
    const plain = yield* open(server, "/api/pulse", { accept: "*/*" })
    assert.strictEqual((yield* plain)?.text, ": welcome")
  }).pipe(Effect.scoped)
)

it.effect("the fleet in lines, what changes in it, and who is gone", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    yield* report(server, agent, "1")
    const next = yield* open(server, "/api/overview")
    const line = { id: agent, facts: 1, errors: 0, lastCollectedAt: 0 }
    const snapshot = yield* Server.nextOf(next, "snapshot")
    assert.deepStrictEqual(snapshot.data, { agents: [line], first: true, last: true })

    yield* TestClock.adjust("500 millis")
    yield* report(server, other, "", "it does not answer")
    yield* TestClock.adjust("2 seconds")
    const added = yield* Server.nextOf(next, "changes")
    const news = { id: other, facts: 1, errors: 1, lastCollectedAt: 500 }
    assert.deepStrictEqual(added.data, { agents: [news], removed: [] })

    const deleted = yield* server.fetch(`/api/agents/${agent}`, { method: "DELETE" })
    assert.deepStrictEqual(yield* Server.json(deleted), { deleted: 1 })
    yield* TestClock.adjust("2 seconds")
    assert.deepStrictEqual((yield* Server.nextOf(next, "changes")).data, { agents: [], removed: [agent] })

    const resumed = yield* open(server, "/api/overview", { "last-event-id": snapshot.id ?? "" })
    assert.deepStrictEqual((yield* Server.nextOf(resumed, "changes")).data, {
      agents: [news],
      removed: [agent]
    })
    const strange = yield* open(server, "/api/overview", { "last-event-id": "elsewhere.7" })
    assert.deepStrictEqual((yield* Server.nextOf(strange, "snapshot")).data.agents, [news])
  }).pipe(Effect.scoped)
)

const idsIn = ({ data }: Server.Received): ReadonlyArray<string> =>
  data.agents.map(({ id }: { readonly id: string }) => id)

/** Somebody looks at a fleet of one agent. */
const lookAtFleet = Effect.gen(function* () {
  const server = yield* Server.start()
  yield* report(server, agent, "1")
  const next = yield* open(server, "/api/overview")
  yield* Server.nextOf(next, "snapshot")
  return { server, next }
})

/** Changes the table without a word to anybody. */
const writeSilently = (server: Server.TestServer, agentId: AgentId) =>
  server.store.batchUpdateMetadata({
    agentIds: [agentId],
    keys: ["cpu"],
    values: ["x"],
    errors: [""],
    collectedAt: [7]
  })

it.effect.each([
  ["nobody told of, within half a minute", undefined, "32 seconds"],
  ["may have been told of in what cannot be read, at once", ["no agents"], "2 seconds"]
] as const)("the fleet's line of an agent that %s", ([, payloads, wait]) =>
  Effect.gen(function* () {
    const { next, server } = yield* lookAtFleet
    yield* writeSilently(server, other)
    if (payloads !== undefined) yield* server.pubsub.publish(metadataBatchChannel, payloads)
    yield* Effect.andThen(Server.turn, TestClock.adjust(wait))
    assert.deepStrictEqual(idsIn(yield* Server.nextOf(next, "changes")), [other])
  }).pipe(Effect.scoped)
)

it.effect("the fleet's line of an agent that was told of while the database was away, once it is back", () =>
  Effect.gen(function* () {
    const { next, server } = yield* lookAtFleet
    yield* writeSilently(server, other)
    server.setAway(true)
    yield* server.pubsub.publish(metadataBatchChannel, AgentIdChunks.encode([other]))
    yield* Effect.andThen(Server.turn, TestClock.adjust("2 seconds"))
    server.setAway(false)
    yield* Effect.andThen(Server.turn, TestClock.adjust("3 seconds"))
    assert.deepStrictEqual(idsIn(yield* Server.nextOf(next, "changes")), [other])
  }).pipe(Effect.scoped)
)

it.effect("the fleet's line of an agent that reported while nobody looked", () =>
  Effect.gen(function* () {
    const server = yield* Server.start({ settings: { maxWatchers: 1 } })
    yield* report(server, agent, "1")
    const controller = new AbortController()
    const first = Server.events(yield* server.fetch("/api/overview", { signal: controller.signal }))
    yield* Server.nextOf(first, "snapshot")
    controller.abort()
    // Once somebody else is let in, nobody looks at the fleet any more.
    const pulse = yield* Effect.repeat(server.fetch("/api/pulse"), {
      until: ({ status }) => status === 200,
      times: 1_000
    })
    yield* report(server, other, "1")
    yield* Effect.promise(async () => pulse.body?.cancel())
    const again = yield* Effect.repeat(server.fetch("/api/overview"), {
      until: ({ status }) => status === 200,
      times: 1_000
    })
    const snapshot = yield* Server.nextOf(Server.events(again), "snapshot")
    assert.deepStrictEqual(idsIn(snapshot), [agent, other])
  }).pipe(Effect.scoped)
)

it.effect("every line that changed, though the watcher has not taken the last ones yet", () =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      Overview.layer.pipe(
        Layer.provideMerge(MetadataWatcher.layer()),
        Layer.provideMerge(
          Layer.mergeAll(
            Store.layerMemory,
            Pubsub.layerMemory,
            Watchers.layer({ maxWatchers: 9, maxWatchersPerToken: 9 })
          )
        )
      )
    )
    const store = Context.get(context, Store.Store)
    const pubsub = Context.get(context, Pubsub.Pubsub)
    const overview = Context.get(context, Overview.Overview)
    const watcher = yield* Context.get(context, Watchers.Watchers)
      .join(["overview"])
      .pipe(
        Effect.provideService(Caller, {
          role: "operator",
          agentId: undefined,
          tokenId: "x",
          expiresAt: undefined
        })
      )
    yield* overview.ready
    overview.tell(watcher, undefined)
    const pull = yield* Stream.toPull(watcher.outbox.stream)
    yield* pull
    for (const agentId of [agent, other]) {
      yield* store.batchUpdateMetadata({
        agentIds: [agentId],
        keys: ["k"],
        values: [""],
        errors: [""],
        collectedAt: [1]
      })
      yield* pubsub.publish(metadataBatchChannel, AgentIdChunks.encode([agentId]))
      yield* TestClock.adjust("2 seconds")
    }
    const text = (yield* pull).map((bytes) => new TextDecoder().decode(bytes)).join("")
    for (const agentId of [agent, other]) assert.include(text, agentId)
  }).pipe(Effect.scoped)
)

it.effect("who leaves gives up his place", () =>
  Effect.gen(function* () {
    const server = yield* Server.start({ settings: { maxWatchers: 1, maxWatchersPerToken: 1 } })
    // Who comes later is shown the first a little later.
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(TestClock.adjust("10 millis"), Server.turn)))
    for (const path of [
      `/api/agents/${agent}/watch`,
      `/api/watch?agents=${agent}`,
      "/api/overview",
      "/api/overview?pulse=true",
      "/api/pulse"
    ]) {
      const controller = new AbortController()
      const ask = server.fetch(path, { signal: controller.signal })
      // The server learns from its socket that the last one has left.
      const { status } = yield* Effect.repeat(ask, { until: ({ status }) => status === 200, times: 1_000 })
      assert.strictEqual(status, 200, path)
      assert.strictEqual((yield* ask).status, 429, path)
      controller.abort()
    }
  }).pipe(Effect.scoped)
)

it.effect("says that the database is away, and that it is back", () =>
  Effect.gen(function* () {
    const server = yield* Server.start()
    yield* report(server, agent, "1")
    const overview = yield* open(server, "/api/overview?pulse=true")
    const one = yield* open(server, `/api/agents/${agent}/watch`)
    const healthy = { storeSince: null, storeError: null, staleSince: null }
    for (const next of [overview, one]) {
      assert.deepStrictEqual((yield* Server.nextOf(next, "state")).data, healthy)
    }
    assert.isAtLeast((yield* Server.nextOf(overview, "history")).data.pulses.length, 1)
    server.setAway(true)
    yield* TestClock.adjust("3 seconds")
    for (const next of [overview, one]) {
      const { data } = yield* Server.nextOf(next, "state")
      assert.isAtMost(data.storeSince, 1_000)
      assert.strictEqual(data.storeError, "the store is unavailable: connection refused")
    }
    assert.isNotNull((yield* Server.nextOf(overview, "pulse")).data.metadata)
    server.setAway(false)
    yield* TestClock.adjust("3 seconds")
    for (const next of [overview, one]) {
      let { data } = yield* Server.nextOf(next, "state")
      while (data.storeSince !== null) data = (yield* Server.nextOf(next, "state")).data
    }
  }).pipe(Effect.scoped)
)

it.effect("sends watchers away when it stops or their token ends, with a hint when to come back", () =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const server = yield* Scope.provide(Server.start({ keys: ["k".repeat(32)] }), scope)
    const token = yield* server.tokens.sign({ role: "reader", expiresIn: Duration.hours(1) })
    const brief = yield* server.tokens.sign({ role: "reader", expiresIn: Duration.seconds(10) })
    const lasting = yield* open(server, "/api/pulse", Server.bearer(token))
    const ending = yield* open(server, "/api/pulse", Server.bearer(brief))
    const farewell = Effect.fnUntraced(function* (next: Effect.Effect<Server.Received | undefined>) {
      const { text } = yield* Server.nextOf(next, "stopping")
      assert.match(text, /^retry: \d{3,4}$/m)
      assert.isUndefined(yield* next)
    })
    const expired = yield* Effect.forkChild(farewell(ending))
    yield* TestClock.adjust("15 seconds")
    yield* Fiber.join(expired)
    const stopped = yield* Effect.forkChild(farewell(lasting))
    yield* Scope.close(scope, Exit.void)
    yield* Fiber.join(stopped)
  })
)

it.effect("the typed client follows a stream until the server stops", () =>
  Effect.gen(function* () {
    const settings = { port: 0 }
    const scope = yield* Scope.make()
    const key = "k".repeat(32)
    const server = yield* Scope.provide(Server.start({ settings, keys: [key] }), scope)
    const token = Redacted.make(yield* server.tokens.sign({ role: "operator", expiresIn: Duration.hours(1) }))
    const client = yield* Client.make({ url: server.url, token })
    assert.deepStrictEqual(
      yield* client.report.metadata({
        params: { id: agent },
        query: {},
        payload: { facts: [{ key: "cpu", value: "1" }] }
      }),
      { accepted: 1, dropped: 0 }
    )
    yield* server.metadata.flush
    const session = yield* client.server.session()
    assert.deepInclude(session, { tokens: true, role: "operator" })
    const refused = yield* Effect.flip(client.agents.metadata({ params: { id: other }, query: {} }))
    assert.strictEqual(refused._tag, "NotFound")

    const shown = yield* Deferred.make<void>()
    const seen = yield* Client.follow((lastEventId) =>
      client.watch.overview({
        query: {},
        headers: lastEventId === undefined ? {} : { "last-event-id": lastEventId }
      })
    ).pipe(
      Stream.map((next) => (next._tag === "Lost" ? "lost" : next.event.event)),
      Stream.tap((what) => (what === "snapshot" ? Deferred.succeed(shown, undefined) : Effect.void)),
      Stream.takeUntil((what) => what === "lost"),
      Stream.runCollect,
      Effect.forkChild
    )
    yield* Deferred.await(shown)
    yield* Scope.close(scope, Exit.void)
    assert.deepStrictEqual(
      Array.from(yield* Fiber.join(seen)).filter((event, i, all) => event !== all[i - 1]),
      ["state", "snapshot", "stopping", "lost"]
    )
  }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer))
)

it.effect("the typed client opens a stream again where the last one ended", () =>
  Effect.gen(function* () {
    const asked: Array<string | undefined> = []
    const seen = yield* Client.follow((last) =>
      Effect.sync(() => {
        asked.push(last)
        return Stream.make({ id: `${asked.length}` })
      })
    ).pipe(Stream.take(5), Stream.runCollect, Effect.forkChild)
    yield* TestClock.adjust("3 seconds")
    yield* Fiber.join(seen)
    assert.deepStrictEqual(asked, [undefined, "1", "2"])
  })
)

it("a watcher who was away for long is told everything, others only the rest", () => {
  const lines = Lines.make("me")
  const line = (i: number, facts: number) => ({ id: agentIdOf(i), facts, errors: 0, lastCollectedAt: 0 })
  const text = (entry: (() => ReadonlyArray<Uint8Array>) | undefined) =>
    (entry?.() ?? []).map((bytes) => new TextDecoder().decode(bytes)).join("")
  const all = new Map(Array.from({ length: 1_200 }, (_, i) => [agentIdOf(i), line(i, 1)] as const))
  lines.replaceAll(all)
  assert.lengthOf(text(lines.snapshot).match(/event: snapshot/g) ?? [], 3)
  assert.lengthOf(text(lines.snapshot).match(/"first":true/g) ?? [], 1)
  assert.lengthOf(text(lines.snapshot).match(/"last":true/g) ?? [], 1)
  assert.isUndefined(lines.replaceAll(all))
  assert.isDefined(lines.replaceSome([agentIdOf(3)], [line(3, 2)]))
  assert.isDefined(lines.replaceSome([agentIdOf(4)], []))
  assert.include(
    text(lines.since("me.1")),
    `"agents":[${JSON.stringify(line(3, 2))}],"removed":["${agentIdOf(4)}"]`
  )
  assert.include(text(lines.since("me.2")), '"agents":[]')
  for (const id of ["you.1", "me.4", "me", "me.x", undefined]) assert.isUndefined(lines.since(id))
  // More come and go than are remembered.
  for (let round = 0; round < 11; round++) {
    const some = Array.from({ length: 1_000 }, (_, i) => line(10_000 + i, round))
    lines.replaceSome(
      some.map(({ id }) => id),
      some
    )
    lines.replaceSome(
      some.map(({ id }) => id),
      []
    )
  }
  assert.isUndefined(lines.since("me.2"))
})
