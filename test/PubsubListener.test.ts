/** What PostgreSQL's and Redis's pubsub have in common, over a transport that does what the test tells it. */
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as TestClock from "effect/testing/TestClock"
import { withoutCaller } from "../src/internal/background.ts"
import { type PubsubError, unavailable } from "../src/internal/pubsub/error.ts"
import * as Listener from "../src/internal/pubsub/listener.ts"
import * as Meters from "../src/internal/pubsub/meters.ts"
import * as Options from "../src/internal/pubsub/options.ts"
import type { Connection, Transport } from "../src/internal/pubsub/transport.ts"
import * as PubsubMetrics from "../src/PubsubMetrics.ts"
import { take } from "./conformance/PubsubSuite.ts"
import { captureLogs } from "./support/Fakes.ts"

const away = unavailable(new Error("away"))

/** A transport in memory. A test takes each connection as it is made, and does with it what it likes. */
const makeTransport = Effect.gen(function* () {
  const connections = yield* Queue.unbounded<FakeConnection>()
  const server = { isUp: true, delivers: true, publishes: true, open: 0, listens: Latch.makeUnsafe(true) }
  const listening = new Map<string, Set<(payload: string) => void>>()
  const publish: Connection["publish"] = (channel, payloads) =>
    Effect.suspend(() => {
      if (!server.publishes) return Effect.fail(away)
      if (!server.delivers) return Effect.void
      for (const deliver of listening.get(channel) ?? []) for (const payload of payloads) deliver(payload)
      return Effect.void
    })
  const transport: Transport = {
    whyUnheard: "for some reason",
    connect: Effect.gen(function* () {
      if (!server.isUp) return yield* Effect.fail(away)
      const lost = Deferred.makeUnsafe<never, PubsubError>()
      yield* Effect.acquireRelease(
        Effect.sync(() => server.open++),
        // Whoever closes a connection learns of it as of any loss.
        () =>
          Effect.andThen(
            Deferred.fail(lost, away),
            Effect.sync(() => server.open--)
          )
      )
      Queue.offerUnsafe(connections, { lose: Effect.asVoid(Deferred.fail(lost, away)) })
      const connection: Connection = {
        publish,
        probe: Effect.void,
        lost: Deferred.await(lost),
        listen: (channel, deliver) =>
          Effect.andThen(
            server.listens.await,
            Effect.acquireRelease(
              Effect.sync(() => {
                listening.set(channel, (listening.get(channel) ?? new Set()).add(deliver))
              }),
              () => Effect.sync(() => listening.get(channel)?.delete(deliver))
            )
          )
      }
      return connection
    })
  }
  return { connections, server, transport }
})

interface FakeConnection {
  readonly lose: Effect.Effect<void>
}

const metrics = PubsubMetrics.make({ prefix: "agentapi" })

const makeListener = Effect.fnUntraced(function* (
  transport: Transport,
  options?: Options.Options & { readonly stayConnected?: boolean }
) {
  return yield* Listener.make({
    transport,
    timing: yield* Options.resolve(options ?? {}),
    meters: yield* Meters.make("agentapi"),
    stayConnected: options?.stayConnected ?? false,
    background: withoutCaller(yield* Effect.context<never>())
  })
})

const run = <A, E, R>(test: Effect.Effect<A, E, R>) =>
  test.pipe(Effect.provideService(Metric.MetricRegistry, new Map()), Effect.provide(Logger.layer([])))

const valueOf = (gauge: Metric.Gauge<number>) => Effect.map(Metric.value(gauge), ({ value }) => value)

it.effect("pauses longer and longer between connections that are lost as soon as they are made", () =>
  Effect.gen(function* () {
    const { connections, server, transport } = yield* makeTransport
    const { subscribe } = yield* makeListener(transport, { maxReconnectDelay: "1 second" })
    const signals = yield* subscribe("news")
    for (const pause of [0, 100, 200, 400, 800, 1_000, 1_000]) {
      yield* Effect.flatMap(Queue.take(connections), ({ lose }) => lose)
      if (pause > 0) {
        yield* TestClock.adjust(pause - 1)
        assert.strictEqual(yield* Queue.size(connections), 0, `${pause} ms`)
      }
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
      assert.strictEqual(server.open, 1)
    }
    // One that has lived for a while earns a new start.
    yield* TestClock.adjust("1 second")
    for (let again = 0; again < 2; again++) {
      yield* Effect.flatMap(Queue.take(connections), ({ lose }) => lose)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
    }
  }).pipe(run)
)

it.effect("makes the connection again when a message to itself was sent and does not arrive", () =>
  Effect.gen(function* () {
    const { connections, server, transport } = yield* makeTransport
    const { subscribe } = yield* makeListener(transport, { heartbeat: "1 second" })
    const signals = yield* subscribe("news")
    yield* Queue.take(connections)
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(yield* Queue.size(signals), 0)

    server.publishes = false
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(yield* Queue.size(signals), 0, "not sent is no verdict")

    server.publishes = true
    server.delivers = false
    yield* TestClock.adjust("2 seconds")
    assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
    yield* Queue.take(connections)
    server.delivers = true
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(yield* Queue.size(signals), 0)
  }).pipe(run)
)

/** Somebody has subscribed, and from then on no LISTEN is answered. */
const beginSilence = Effect.gen(function* () {
  const { connections, server, transport } = yield* makeTransport
  const { subscribe } = yield* makeListener(transport)
  const signals = yield* subscribe("news")
  const first = yield* Queue.take(connections)
  yield* server.listens.close
  return { connections, first, server, signals, subscribe }
})

it.effect("frees whoever waits for a connection that is lost, and connects again", () =>
  Effect.gen(function* () {
    const { first, server, signals, subscribe } = yield* beginSilence
    const waiting = yield* Effect.forkChild(Effect.flip(Effect.scoped(subscribe("weather"))))
    yield* TestClock.adjust(1)
    yield* first.lose
    const { reason } = yield* Fiber.join(waiting)
    assert.strictEqual(reason._tag, "Unavailable")
    yield* server.listens.open
    assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
  }).pipe(run)
)

it.effect("gives up a connection on which nobody answers, and makes another", () =>
  Effect.gen(function* () {
    const { connections, first, server, signals } = yield* beginSilence
    yield* first.lose
    yield* TestClock.adjust("1 minute")
    assert.isAtLeast(yield* Queue.size(connections), 2)
    yield* server.listens.open
    yield* TestClock.adjust("1 minute")
    assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
  }).pipe(run)
)

it.effect("fails what is being published on a connection that is lost", () =>
  Effect.gen(function* () {
    const { connections, transport } = yield* makeTransport
    const silent: Transport = {
      ...transport,
      connect: Effect.map(transport.connect, (connection) => ({
        ...connection,
        publish: () => Effect.never
      }))
    }
    const { publish, subscribe } = yield* makeListener(silent)
    yield* subscribe("news")
    const { lose } = yield* Queue.take(connections)
    const waiting = yield* Effect.forkChild(Effect.flip(publish("news", ["x"])), { startImmediately: true })
    yield* lose
    yield* TestClock.adjust(1)
    assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "Unavailable")
  }).pipe(run)
)

it.effect("says whether it is connected: not while lost or unreachable, but when nobody needs it", () =>
  Effect.gen(function* () {
    const { connections, server, transport } = yield* makeTransport
    const { subscribe } = yield* makeListener(transport)
    assert.strictEqual(yield* valueOf(metrics.connected), 1)
    server.isUp = false
    yield* Effect.flip(Effect.scoped(subscribe("news")))
    assert.strictEqual(yield* valueOf(metrics.connected), 0)
    server.isUp = true
    const signals = yield* subscribe("news")
    assert.strictEqual(yield* valueOf(metrics.connected), 1)
    server.isUp = false
    yield* Effect.flatMap(Queue.take(connections), ({ lose }) => lose)
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(yield* valueOf(metrics.connected), 0)
    server.isUp = true
    yield* TestClock.adjust("12 seconds")
    assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
    assert.strictEqual(yield* valueOf(metrics.connected), 1)
    assert.strictEqual((yield* Metric.value(metrics.reconnects)).count, 1)
  }).pipe(run)
)

it.effect("counts what a subscriber missed that fell behind apart from lost connections", () =>
  Effect.gen(function* () {
    const { transport } = yield* makeTransport
    const { publish, subscribe } = yield* makeListener(transport, { stayConnected: true })
    yield* subscribe("news")
    const payloads = Array.from({ length: 600 }, () => "x")
    yield* publish("news", payloads)
    const resyncs = (reason: string) => Metric.value(Metric.withAttributes(metrics.resyncs, { reason }))
    assert.strictEqual((yield* resyncs("backlog")).count, 1)
    assert.strictEqual((yield* resyncs("reconnect")).count, 0)
    assert.strictEqual((yield* Metric.value(metrics.messagesReceived)).count, 600)
  }).pipe(run)
)

it.effect("connects again though the logger throws", () =>
  Effect.gen(function* () {
    const { connections, transport } = yield* makeTransport
    const { subscribe } = yield* makeListener(transport)
    const signals = yield* subscribe("news")
    yield* Effect.flatMap(Queue.take(connections), ({ lose }) => lose)
    assert.deepStrictEqual(yield* take(signals, 1), ["Resync"])
  }).pipe(
    Effect.provide(
      Logger.layer([
        Logger.make(() => {
          throw new Error("no disk")
        })
      ])
    )
  )
)

it.effect("closes a connection that nobody needs any more, opened or not yet, without a word", () => {
  const [lines, logs] = captureLogs()
  return Effect.gen(function* () {
    const { server, transport } = yield* makeTransport
    const { subscribe } = yield* makeListener(transport)
    yield* server.listens.close
    const waiting = yield* Effect.forkChild(Effect.scoped(subscribe("news")))
    yield* TestClock.adjust(1)
    assert.strictEqual(server.open, 1)
    yield* Fiber.interrupt(waiting)
    assert.strictEqual(server.open, 0)
    yield* server.listens.open
    yield* Effect.scoped(subscribe("news"))
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(server.open, 0)
    assert.deepStrictEqual(lines, [])
  }).pipe(Effect.provide(logs), run)
})
