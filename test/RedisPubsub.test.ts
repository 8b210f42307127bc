import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, layer, it as test } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Pubsub from "../src/Pubsub.ts"
import * as PubsubMetrics from "../src/PubsubMetrics.ts"
import * as RedisPubsub from "../src/RedisPubsub.ts"
import {
  makeChannel,
  PubsubUnderTest,
  pubsubSuite,
  take,
  takeUntilResync
} from "./conformance/PubsubSuite.ts"
import { captureLogs } from "./support/Fakes.ts"
import * as RedisServer from "./support/RedisServer.ts"

const clientOf =
  (path: string): RedisPubsub.Client =>
  (settings) =>
    NodeRedis.layer({ ...settings, socket: { ...settings.socket, path, tls: false } })

const makePubsub = (options?: RedisPubsub.Options) =>
  Effect.flatMap(RedisServer.RedisServer, ({ path }) =>
    RedisPubsub.make(clientOf(path), { maxReconnectDelay: "100 millis", ...options })
  )

const until = <A, E, R>(effect: Effect.Effect<A, E, R>, predicate: (a: A) => boolean) =>
  Effect.repeat(effect, { until: predicate, schedule: Schedule.spaced("5 millis") })

const underTest = Layer.effect(
  PubsubUnderTest,
  Effect.gen(function* () {
    const server = yield* RedisServer.RedisServer
    const { connected } = PubsubMetrics.make({ prefix: "here" })
    const isLost = until(Metric.value(connected), ({ value }) => value === 0)
    return {
      pubsub: yield* makePubsub({ heartbeat: "1 second", metricsPrefix: "here" }),
      elsewhere: yield* makePubsub(),
      cut: Effect.asVoid(server.command("CLIENT KILL TYPE pubsub")),
      crash: Effect.andThen(server.kill, server.start),
      restart: Effect.andThen(server.stop, server.start),
      hang: Effect.acquireUseRelease(
        server.freeze,
        () => isLost,
        () => server.thaw
      )
    }
  })
).pipe(Layer.provide(Logger.layer([])))

const assertDelivers = Effect.fnUntraced(function* (
  pubsub: Pubsub.Pubsub["Service"],
  channel: string,
  signals: Queue.Dequeue<Pubsub.Signal>,
  payload: string
) {
  yield* pubsub.publish(channel, [payload])
  assert.deepStrictEqual(yield* take(signals, 1), [payload])
})

if (RedisServer.whyMissing !== undefined) {
  test.skip(`RedisPubsub: ${RedisServer.whyMissing}`, () => {})
  console.warn(`RedisPubsub: ${RedisServer.whyMissing}`)
} else {
  pubsubSuite("Redis", Layer.provide(underTest, RedisServer.layer))

  layer(RedisServer.layer, { excludeTestServices: true, timeout: "30 seconds" })("RedisPubsub", (it) => {
    it.effect("delivers what another process publishes, on the same channel and as it is", () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.RedisServer
        const pubsub = yield* makePubsub()
        const signals = yield* pubsub.subscribe("news")
        yield* server.command("PUBLISH news headline")
        assert.deepStrictEqual(yield* take(signals, 1), ["headline"])
        const other = yield* makePubsub()
        yield* other.publish("news", ["second", "third"])
        assert.deepStrictEqual(yield* take(signals, 2), ["second", "third"])
      })
    )

    for (const [how, done] of [
      ["kill", "killed"],
      ["stop", "stopped"]
    ] as const) {
      it.effect(`tells subscribers to read anew after the server was ${done} and is back`, () =>
        Effect.gen(function* () {
          const server = yield* RedisServer.RedisServer
          const [lines, layer] = captureLogs()
          yield* Effect.gen(function* () {
            const pubsub = yield* makePubsub()
            const channel = makeChannel()
            const signals = yield* pubsub.subscribe(channel)
            yield* assertDelivers(pubsub, channel, signals, "before")
            yield* server[how]
            const lost = yield* Effect.flip(pubsub.publish(channel, ["lost"]))
            assert.strictEqual(lost.reason._tag, "Unavailable")
            const refused = yield* Effect.flip(pubsub.subscribe(makeChannel()))
            assert.strictEqual(refused.reason._tag, "Unavailable")
            yield* server.start
            yield* takeUntilResync(signals)
            yield* assertDelivers(pubsub, channel, signals, "after")
            yield* until(
              Effect.sync(() => lines.filter(({ level }) => level !== "Debug")),
              (said) => said.length >= 2
            )
          }).pipe(Effect.scoped, Effect.provide(layer))
          assert.deepStrictEqual(
            lines
              .filter(({ level }) => level !== "Debug")
              .map(({ level, message }) => `${level}: ${message}`),
            [
              "Warn: Lost the connection that listens for notifications; connecting again",
              "Info: Listening for notifications again"
            ]
          )
        })
      )
    }

    it.effect("finds out by itself that the server hangs, and closes in time while it does", () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.RedisServer
        const pubsub = yield* makePubsub({ heartbeat: "300 millis" })
        const channel = makeChannel()
        const signals = yield* pubsub.subscribe(channel)
        const [closing] = yield* Effect.timed(
          Effect.scoped(
            Effect.gen(function* () {
              const other = yield* makePubsub()
              yield* server.freeze
              yield* Effect.timeoutOption(other.publish(channel, ["perhaps"]), "50 millis")
            })
          )
        )
        assert.isBelow(Duration.toSeconds(closing), 10)
        const { reason } = yield* Effect.flip(pubsub.publish(channel, ["perhaps"]))
        assert.strictEqual(reason._tag, "Unavailable")
        yield* server.thaw
        yield* takeUntilResync(signals)
        yield* pubsub.publish(channel, ["after"])
        yield* Effect.repeat(Queue.take(signals), {
          until: (signal) => signal._tag === "Message" && signal.payload === "after"
        })
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
    )

    it.effect("takes a server that is down at the start for an outage", () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.RedisServer
        yield* server.stop
        const pubsub = yield* makePubsub()
        const channel = makeChannel()
        const refused = yield* Effect.flip(pubsub.publish(channel, ["lost"]))
        assert.strictEqual(refused.reason._tag, "Unavailable")
        assert.strictEqual((yield* Effect.flip(pubsub.subscribe(channel))).reason._tag, "Unavailable")
        yield* server.start
        const signals = yield* Effect.retry(pubsub.subscribe(channel), Schedule.spaced("20 millis"))
        yield* assertDelivers(pubsub, channel, signals, "hello")
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
    )

    it.effect(
      "learns of a lost connection from the client, whichever it is, and needs no heartbeat for it",
      () =>
        Effect.gen(function* () {
          const { command } = yield* RedisServer.RedisServer
          const pubsub = yield* makePubsub({ heartbeat: "1 hour" })
          const channel = makeChannel()
          const signals = yield* pubsub.subscribe(channel)
          for (const type of ["normal", "pubsub"]) {
            yield* command(`CLIENT KILL TYPE ${type} SKIPME yes`)
            yield* takeUntilResync(signals)
            yield* assertDelivers(pubsub, channel, signals, "after")
          }
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
    )

    it.effect("notices when the client connects again by itself and tells nobody", () =>
      Effect.gen(function* () {
        const { command, path } = yield* RedisServer.RedisServer
        const pubsub = yield* RedisPubsub.make(() => NodeRedis.layer({ socket: { path, tls: false } }), {
          heartbeat: "300 millis"
        })
        const channel = makeChannel()
        const signals = yield* pubsub.subscribe(channel)
        yield* command("CLIENT KILL TYPE normal SKIPME yes")
        yield* takeUntilResync(signals)
        yield* assertDelivers(pubsub, channel, signals, "after")
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
    )

    it.effect("quotes no payload in an error, though the server does", () =>
      Effect.gen(function* () {
        const { command } = yield* RedisServer.RedisServer
        const pubsub = yield* makePubsub()
        yield* command("ACL SETUSER default -publish")
        for (const payloads of [["a secret"], ["a secret", "another"]]) {
          const error = yield* Effect.flip(pubsub.publish("news", payloads))
          assert.strictEqual(error.reason._tag, "Unavailable")
          assert.match(error.message, /Redis answered (NOPERM|ERR)$/)
          assert.notInclude(JSON.stringify(error), "secret")
        }
        yield* command("ACL SETUSER default +publish")
      }).pipe(Effect.scoped)
    )

    it.effect("counts what it does, and stays connected through heartbeats", () =>
      Effect.gen(function* () {
        const { command } = yield* RedisServer.RedisServer
        const metrics = PubsubMetrics.make({ prefix: "counted" })
        const count = (counter: Metric.Counter<number>) =>
          Effect.map(Metric.value(counter), ({ count }) => count)
        const pubsub = yield* makePubsub({ heartbeat: "300 millis", metricsPrefix: "counted" })
        const signals = yield* pubsub.subscribe("counted")
        assert.strictEqual((yield* Metric.value(metrics.connected)).value, 1)
        yield* pubsub.publish("counted", ["é", "two"])
        yield* take(signals, 2)
        assert.strictEqual(yield* count(metrics.messagesSent), 2)
        assert.strictEqual(yield* count(metrics.messagesReceived), 2)
        assert.strictEqual(yield* count(metrics.sentBytes), 5)
        assert.strictEqual(yield* count(metrics.receivedBytes), 5)
        yield* until(Metric.value(metrics.deliveryLatency), ({ count }) => count >= 4)
        assert.strictEqual(yield* count(metrics.reconnects), 0)
        yield* command("CLIENT KILL TYPE pubsub")
        yield* takeUntilResync(signals)
        yield* until(count(metrics.reconnects), (count) => count === 1)
        const resyncs = Metric.withAttributes(metrics.resyncs, { reason: "reconnect" })
        assert.strictEqual(yield* count(resyncs), 1)
      }).pipe(
        Effect.scoped,
        Effect.provideService(Metric.MetricRegistry, new Map()),
        Effect.provide(Logger.layer([]))
      )
    )
  })
}
