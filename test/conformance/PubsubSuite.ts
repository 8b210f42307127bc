/**
 * What every `Pubsub` must do, run against each implementation.
 *
 * The tests share one pubsub and keep apart by channels of their own.
 */
import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type * as Pubsub from "../../src/Pubsub.ts"

/** The pubsub, and what may happen to it. Each misfortune is over when it returns. */
export class PubsubUnderTest extends Context.Service<
  PubsubUnderTest,
  {
    readonly pubsub: Pubsub.Pubsub["Service"]
    /** The same channels in another process. */
    readonly elsewhere: Pubsub.Pubsub["Service"]
    /** The connection that listens is lost. */
    readonly cut: Effect.Effect<void>
    /** The server crashes and is started again. */
    readonly crash: Effect.Effect<void>
    /** The server is shut down and started again. */
    readonly restart: Effect.Effect<void>
    /** The server keeps its connections and answers nothing, until that has been noticed. */
    readonly hang: Effect.Effect<void>
  }
>()("test/PubsubUnderTest") {}

const misfortunes = [
  ["its connection was lost", "cut"],
  ["its server crashed", "crash"],
  ["its server was restarted", "restart"],
  ["its server hung", "hang"]
] as const

/** How often the connection is lost in a row; a soak asks for more. */
const losses = Number(process.env["SOAK_LOSSES"] ?? 5)

export const makeChannel = (): string => `channel ${crypto.randomUUID()}`

/** The payloads of the next messages. */
export const take = (signals: Queue.Dequeue<Pubsub.Signal>, count: number) =>
  Effect.map(Queue.takeN(signals, count), (taken) =>
    taken.map((signal) => (signal._tag === "Message" ? signal.payload : signal._tag))
  )

export const takeUntilResync = (signals: Queue.Dequeue<Pubsub.Signal>) =>
  Effect.repeat(Queue.take(signals), { until: (signal) => signal._tag === "Resync" })

const invalid: ReadonlyArray<readonly [what: string, channel: string, payload: string]> = [
  ["a payload of 8,000 bytes", "channel", "x".repeat(8_000)],
  ["a payload of 4,000 characters of two bytes", "channel", "é".repeat(4_000)],
  ["a payload with a NUL", "channel", "a\0b"],
  ["a payload with a lone surrogate", "channel", "a\ud800b"],
  ["a channel with a lone surrogate", "\ud800", ""],
  ["a channel of 64 bytes", "c".repeat(64), ""],
  ["a channel of 32 characters of two bytes", "é".repeat(32), ""],
  ["a channel without a name", "", ""]
]

export const pubsubSuite = <E>(name: string, pubsubLayer: Layer.Layer<PubsubUnderTest, E>): void =>
  layer(pubsubLayer, { excludeTestServices: true, timeout: "30 seconds" })(`Pubsub: ${name}`, (it) => {
    it.effect("delivers the payloads in the order they were published", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        const signals = yield* pubsub.subscribe(channel)
        yield* pubsub.publish(channel, ["z", "a", "m"])
        yield* pubsub.publish(channel, ["b"])
        yield* pubsub.publish(channel, ["", "a"])
        assert.deepStrictEqual(yield* take(signals, 6), ["z", "a", "m", "b", "", "a"])
      })
    )

    it.effect("delivers to every subscriber of the channel and to no other", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const [news, weather] = [makeChannel(), makeChannel()]
        const first = yield* pubsub.subscribe(news)
        const second = yield* pubsub.subscribe(news)
        const third = yield* pubsub.subscribe(weather)
        yield* pubsub.publish(news, ["headline"])
        yield* pubsub.publish(weather, ["rain"])
        yield* pubsub.publish(news, ["correction"])
        assert.deepStrictEqual(yield* take(first, 2), ["headline", "correction"])
        assert.deepStrictEqual(yield* take(second, 2), ["headline", "correction"])
        assert.deepStrictEqual(yield* take(third, 1), ["rain"])
        assert.strictEqual(yield* Queue.size(third), 0)
      })
    )

    it.effect("takes no payloads for nothing to do", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        const signals = yield* pubsub.subscribe(channel)
        yield* pubsub.publish(channel, [])
        yield* pubsub.publish(channel, ["something"])
        assert.deepStrictEqual(yield* take(signals, 1), ["something"])
      })
    )

    it.effect("tells channels apart by case and takes any character in their names", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const [lower, upper] = ['a "b" é; --', 'A "B" é; --']
        const first = yield* pubsub.subscribe(lower)
        const second = yield* pubsub.subscribe(upper)
        yield* pubsub.publish(lower, ["lower"])
        yield* pubsub.publish(upper, ["upper"])
        assert.deepStrictEqual(yield* take(first, 1), ["lower"])
        assert.deepStrictEqual(yield* take(second, 1), ["upper"])
      })
    )

    it.effect("carries payloads of 7,986 and of 7,999 bytes, and any text", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        const signals = yield* pubsub.subscribe(channel)
        const payloads = ["x".repeat(7_986), "y".repeat(7_999), `${"é".repeat(3_999)}!`, "'\"\\{}\n\t👩‍👩‍👧"]
        yield* pubsub.publish(channel, payloads)
        assert.deepStrictEqual(yield* take(signals, payloads.length), payloads)
      })
    )

    it.effect.each(invalid)(
      "refuses %s as invalid, and publishes nothing of the call",
      ([, channel, payload]) =>
        Effect.gen(function* () {
          const { pubsub } = yield* PubsubUnderTest
          const signals = yield* pubsub.subscribe("channel")
          const { reason } = yield* Effect.flip(pubsub.publish(channel, ["good", payload]))
          assert.strictEqual(reason._tag, "Invalid")
          yield* pubsub.publish("channel", ["after"])
          assert.deepStrictEqual(yield* take(signals, 1), ["after"])
        })
    )

    it.effect("refuses to subscribe to a channel that cannot be", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        for (const channel of ["", "c".repeat(64), "a\0b"]) {
          const { reason } = yield* Effect.flip(pubsub.subscribe(channel))
          assert.strictEqual(reason._tag, "Invalid")
        }
      })
    )

    it.effect("ends a subscription with its scope, and leaves the others be", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        const scope = yield* Scope.make()
        const leaving = yield* Scope.provide(pubsub.subscribe(channel), scope)
        const staying = yield* pubsub.subscribe(channel)
        yield* pubsub.publish(channel, ["to both"])
        assert.deepStrictEqual(yield* take(leaving, 1), ["to both"])
        yield* Scope.close(scope, Exit.void)
        yield* pubsub.publish(channel, ["to one"])
        assert.deepStrictEqual(yield* take(staying, 2), ["to both", "to one"])
        assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(Queue.take(leaving))))

        const again = yield* pubsub.subscribe(channel)
        yield* pubsub.publish(channel, ["to both again"])
        assert.deepStrictEqual(yield* take(staying, 1), ["to both again"])
        assert.deepStrictEqual(yield* take(again, 1), ["to both again"])
      })
    )

    it.effect("subscribes anew to a channel that its last subscriber left", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        for (const payload of ["first", "second", "third"]) {
          const taken = yield* Effect.scoped(
            Effect.gen(function* () {
              const signals = yield* pubsub.subscribe(channel)
              yield* pubsub.publish(channel, [payload])
              return yield* take(signals, 1)
            })
          )
          assert.deepStrictEqual(taken, [payload])
        }
      })
    )

    it.effect("delivers what another process publishes, and the other way round", () =>
      Effect.gen(function* () {
        const { elsewhere, pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        const [here, there] = [yield* pubsub.subscribe(channel), yield* elsewhere.subscribe(channel)]
        yield* elsewhere.publish(channel, ["from there", "and more"])
        assert.deepStrictEqual(yield* take(here, 2), ["from there", "and more"])
        yield* pubsub.publish(channel, ["from here"])
        assert.deepStrictEqual(yield* take(there, 3), ["from there", "and more", "from here"])
      })
    )

    it.effect.each(misfortunes)(
      "tells every subscriber of every channel to read anew after %s",
      ([, misfortune]) =>
        Effect.gen(function* () {
          const { pubsub, [misfortune]: happen } = yield* PubsubUnderTest
          const [news, weather] = [makeChannel(), makeChannel()]
          const subscriptions = [
            { channel: news, signals: yield* pubsub.subscribe(news) },
            { channel: news, signals: yield* pubsub.subscribe(news) },
            { channel: weather, signals: yield* pubsub.subscribe(weather) }
          ]
          for (const round of ["first", "second"]) {
            yield* pubsub.publish(news, [`before the ${round}`])
            yield* pubsub.publish(weather, [`before the ${round}`])
            for (const { signals } of subscriptions) {
              assert.deepStrictEqual(yield* take(signals, 1), [`before the ${round}`])
            }
            yield* happen
            for (const { signals } of subscriptions) yield* takeUntilResync(signals)
            // The pool that publishes may hold a connection that it does not know to be dead.
            for (const channel of [news, weather]) {
              yield* Effect.retry(
                pubsub.publish(channel, [`after the ${round}`]),
                Schedule.spaced("20 millis")
              )
            }
            for (const { signals } of subscriptions) {
              assert.deepStrictEqual(yield* take(signals, 1), [`after the ${round}`])
            }
          }
        })
    )

    it.effect(
      `loses nobody in ${losses} lost connections in a row while others come and go`,
      () =>
        Effect.gen(function* () {
          const { cut, pubsub } = yield* PubsubUnderTest
          const channel = makeChannel()
          const signals = yield* pubsub.subscribe(channel)
          for (let round = 0; round < losses; round++) {
            const visitor = Effect.scoped(Effect.ignore(pubsub.subscribe(makeChannel())))
            yield* Effect.all([visitor, cut, visitor], { concurrency: "unbounded" })
            yield* takeUntilResync(signals)
            const payload = `round ${round}`
            yield* Effect.retry(pubsub.publish(channel, [payload]), Schedule.spaced("20 millis"))
            // More than one reconnect may follow one loss.
            const next = yield* Effect.repeat(Queue.take(signals), {
              until: (signal) => signal._tag === "Message"
            })
            assert.deepStrictEqual(next, { _tag: "Message", payload })
          }
        }),
      30_000 + losses * 1_000
    )

    it.effect("keeps a bounded backlog for a subscriber that does not read, and holds up no other", () =>
      Effect.gen(function* () {
        const { pubsub } = yield* PubsubUnderTest
        const channel = makeChannel()
        const slow = yield* pubsub.subscribe(channel)
        const fast = yield* pubsub.subscribe(channel)
        const payloads = Array.from({ length: 2_000 }, (_, index) => `${index}`)
        const received: Array<string> = []
        for (let start = 0; start < payloads.length; start += 100) {
          yield* pubsub.publish(channel, payloads.slice(start, start + 100))
          received.push(...(yield* take(fast, 100)))
        }
        assert.deepStrictEqual(received, payloads)
        const backlog = yield* take(slow, yield* Queue.size(slow))
        assert.isAtMost(backlog.length, 512)
        assert.strictEqual(backlog[0], "Resync")
        assert.deepStrictEqual(backlog.slice(1), payloads.slice(payloads.length - backlog.length + 1))
      })
    )
  })
