/** Others are told of what was written, once it is, and of what they could not be told later: law 9. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Pubsub from "../src/Pubsub.ts"
import { agentIdOf, assertMetrics, type Fault, facts, start, warnings } from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000
const down: Fault = { _tag: "Fail", reason: "Unavailable", millis: 0 }

describe("A failed notification", () => {
  it.effect("is counted and logged, repeated until it succeeds, and the write never is", () =>
    Effect.gen(function* () {
      const started = yield* start()
      const { batcher, logs, metrics, publishes, published, valueOf, writes } = started
      const lost = Effect.fail(Pubsub.unavailable(new Error("connection refused")))
      publishes.answer(lost, lost)
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust(interval)
      const warning = yield* logs.next("Warn")
      assert.include(`${warning.message} ${warning.annotations["error"]}`, "connection refused")
      assert.strictEqual((yield* valueOf(metrics.unannounced)).value, 1)
      yield* TestClock.adjust(interval)
      assert.strictEqual((yield* valueOf(metrics.unannounced)).value, 0)
      assert.deepStrictEqual(
        published.map(({ agents }) => agents),
        [[agentA], [agentA], [agentA]]
      )
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(writes.calls.length, 1)
      assert.strictEqual(publishes.calls.length, 3)
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 3, agents: 1, publishErrors: 2 })
    })
  )

  it.effect("is made good with the next one, if that comes first, and names each agent once", () =>
    Effect.gen(function* () {
      const { batcher, publishes, published } = yield* start({ interval: "1 minute" })
      publishes.answer(Effect.fail(Pubsub.unavailable(new Error("down"))))
      yield* batcher.add(agentA, facts(3))
      yield* batcher.flush
      yield* batcher.add(agentB, facts(1))
      yield* batcher.add(agentA, facts(1))
      yield* batcher.flush
      assert.deepStrictEqual(
        published.map(({ agents }) => [...agents].sort()),
        [[agentA], [agentA, agentB]]
      )
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(publishes.calls.length, 2)
    })
  )

  it.effect("is retried with growing pauses below the interval", () =>
    Effect.gen(function* () {
      const { batcher, inject, publishes } = yield* start()
      inject({ publish: [down] })
      yield* batcher.add(agentA, facts(1))
      yield* batcher.flush
      yield* TestClock.adjust("2 minutes")
      const pauses = publishes.times.slice(1).map((time, i) => time - (publishes.times[i] ?? 0))
      assert.isBelow(pauses[0] ?? 0, 200)
      assert.isTrue(pauses.every((pause) => pause <= interval))
      assert.isAbove(pauses.length, 20)
      assert.isBelow(pauses.length, 40)
    })
  )

  it.effect("counts each of its messages", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval: "1 hour" })
      started.publishes.answer(Effect.die("a bug in the pubsub"))
      for (let agent = 0; agent < 400; agent++) yield* started.batcher.add(agentIdOf(agent), facts(1))
      yield* started.batcher.flush
      yield* assertMetrics(started, { batches: { manual: 1 }, flushed: 400, agents: 400, publishErrors: 2 })
    })
  )

  it.effect("leaves at most maxPending agents waiting", () =>
    Effect.gen(function* () {
      const { batcher, inject, metrics, published, valueOf } = yield* start({
        maxBatchSize: 10,
        maxPending: 30,
        interval: "1 hour"
      })
      inject({ publish: [down] })
      for (let round = 0; round < 6; round++) {
        for (let agent = 0; agent < 10; agent++) batcher.addUnsafe(agentIdOf(10 * round + agent), facts(1))
        yield* batcher.flush
      }
      assert.strictEqual((yield* valueOf(metrics.unannounced)).value, 30)
      inject({ publish: [] })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(published.at(-1)?.agents.length, 30)
    })
  )
})

describe("A notification that hangs holds up no write", () => {
  it.effect("at capacity", () =>
    Effect.gen(function* () {
      const { batcher, publishes, writes } = yield* start({ maxBatchSize: 2 })
      publishes.answer(Effect.never)
      yield* batcher.add(agentA, facts(2))
      yield* publishes.began
      yield* batcher.add(agentB, facts(2))
      yield* writes.ended
      yield* writes.ended
      assert.deepStrictEqual(writes.times, [0, 0])
    })
  )

  it.effect("on schedule", () =>
    Effect.gen(function* () {
      const { batcher, publishes, writes } = yield* start()
      publishes.answer(Effect.never)
      yield* batcher.add(agentA, facts(2))
      yield* TestClock.adjust("5 seconds")
      yield* batcher.add(agentA, facts(2))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(writes.times, [5000, 10_000])
    })
  )

  it.effect("on demand", () =>
    Effect.gen(function* () {
      const { batcher, publishes, until, writes } = yield* start({ maxBatchSize: 2 })
      const gate = writes.hold()
      publishes.answer(Effect.void, Effect.never)
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      yield* batcher.add(agentB, facts(3))
      yield* until(({ pending }) => pending === 3)
      yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* gate.open
      for (const _ of [1, 2, 3]) yield* writes.ended
      assert.deepStrictEqual(writes.times, [0, 0, 0])
    })
  )

  it.effect("at shutdown", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, close, publishes, until, writes } = yield* start({ maxBatchSize: 2 })
      const gate = writes.hold()
      publishes.answer(Effect.never, Effect.never, Effect.never)
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      yield* batcher.add(agentB, facts(3))
      yield* until(({ pending }) => pending === 3)
      const closed = yield* Effect.forkChild(close, { startImmediately: true })
      yield* gate.open
      yield* publishes.began
      // All the time the shutdown may take, and less than a publish may.
      yield* TestClock.adjust("15 seconds")
      yield* Fiber.join(closed)
      assert.strictEqual(writes.succeeded.length, 3)
      yield* assertAccount({ written: 5, discarded: 0 })
    })
  )

  it.effect("and is given up after writeTimeout, counted, and repeated", () =>
    Effect.gen(function* () {
      const started = yield* start()
      started.publishes.answer(Effect.never)
      yield* started.batcher.add(agentA, facts(2))
      yield* TestClock.adjust("36 seconds")
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 2, agents: 1, publishErrors: 1 })
      assert.strictEqual((yield* started.logs.next("Warn")).at, 35_000)
      assert.strictEqual(started.publishes.succeeded.length, 1)
    })
  )

  it.effect("is one of at most 16 under way, whose agents wait for the next", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, metrics, published, publishes, valueOf } = yield* start({
        maxBatchSize: 1,
        writeTimeout: 0
      })
      inject({ publish: [{ _tag: "Hang", interruptible: false }] })
      for (let agent = 0; agent < 40; agent++) {
        batcher.addUnsafe(agentIdOf(agent), facts(1))
        yield* TestClock.adjust(0)
      }
      yield* assertAccount({ written: 40 })
      assert.strictEqual(publishes.calls.length, 16)
      assert.strictEqual((yield* valueOf(metrics.unannounced)).value, 24)
      // The 16 are given up after 30 s, and all 40 agents are told.
      inject({ publish: [] })
      yield* TestClock.adjust("40 seconds")
      assert.strictEqual((yield* valueOf(metrics.unannounced)).value, 0)
      assert.strictEqual(new Set(published.slice(16).flatMap(({ agents }) => agents)).size, 40)
    })
  )
})

describe("A bad pubsub", () => {
  const cases: ReadonlyArray<readonly [string, Fault]> = [
    ["that fails", down],
    ["that refuses", { _tag: "Fail", reason: "Rejected", millis: 0 }],
    ["that dies", { _tag: "Die" }],
    ["that throws", { _tag: "Throw" }],
    ["that interrupts", { _tag: "Interrupt" }],
    ["that hangs", { _tag: "Hang", interruptible: true }],
    ["that hangs and cannot be interrupted", { _tag: "Hang", interruptible: false }]
  ]
  it.effect.each(cases)("%s costs no fact, no second write and no later flush", ([, fault]) =>
    Effect.gen(function* () {
      const { applied, assertAccount, batcher, inject, logs, metrics, published, valueOf } = yield* start({
        maxBatchSize: 10
      })
      inject({ publish: [fault] })
      for (let minute = 1; minute <= 3; minute++) {
        batcher.addUnsafe(agentA, facts(35, `${minute}`, minute))
        // A notification that hangs for `writeTimeout` must not delay the second batch or the next flush.
        yield* TestClock.adjust(2 * interval)
        yield* assertAccount({ written: 35 * minute, pending: 0, inFlight: 0 })
      }
      assert.strictEqual(applied.length, 105)
      yield* TestClock.adjust("1 minute")
      assert.isTrue(warnings(logs.lines).some(({ message }) => message.includes("failed to publish")))

      inject({ publish: [] })
      const before = published.length
      batcher.addUnsafe(agentB, facts(1))
      yield* TestClock.adjust("1 minute")
      const told = new Set(published.slice(before).flatMap(({ agents }) => agents))
      assert.sameMembers(Array.from(told), [agentA, agentB])
      assert.strictEqual((yield* valueOf(metrics.unannounced)).value, 0)
    })
  )

  it.effect("does not keep the batcher from recovering from an outage that begins meanwhile", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject } = yield* start({ maxBatchSize: 10, writeTimeout: 0 })
      inject({ write: [down], publish: [{ _tag: "Hang", interruptible: false }] })
      batcher.addUnsafe(agentA, facts(5))
      yield* TestClock.adjust(2 * interval)
      inject({ write: [] })
      yield* TestClock.adjust(interval)
      yield* assertAccount({ written: 5 })

      inject({ write: [down] })
      batcher.addUnsafe(agentB, facts(5))
      yield* TestClock.adjust(2 * interval)
      inject({ write: [] })
      yield* TestClock.adjust(interval)
      yield* assertAccount({ written: 10, pending: 0 })
    })
  )
})

describe("An agent", () => {
  it.effect("is named once, though its facts are taken in two turns for one batch", () =>
    Effect.gen(function* () {
      const { batcher, inject, published } = yield* start({ maxBatchSize: 2, interval: "1 second" })
      inject({ write: [down, { _tag: "Delay", millis: 0 }] })
      batcher.addUnsafe(agentA, facts(3))
      yield* TestClock.adjust("10 seconds")
      inject({ write: [] })
      yield* TestClock.adjust("10 seconds")
      assert.isAtLeast(published.length, 2)
      for (const { agents } of published) assert.deepStrictEqual(agents, [agentA])
    })
  )
})

describe("Nobody is told", () => {
  it.effect("of a flush in which nothing changed", () =>
    Effect.gen(function* () {
      const { batcher, metrics, publishes, valueOf, writes } = yield* start()
      writes.answer(Effect.succeed({ changed: 0, superseded: [0], missing: [1, 2], refused: [] }))
      yield* batcher.add(agentA, facts(3))
      assert.deepInclude(yield* batcher.flush, { written: 0, superseded: 1, discarded: 2 })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(publishes.calls, [])
      const batches = Metric.withAttributes(metrics.batches, { reason: "manual" })
      assert.strictEqual((yield* valueOf(batches)).count, 0)
    })
  )

  it.effect("of an agent none of whose rows changed", () =>
    Effect.gen(function* () {
      const { batcher, published, writes } = yield* start()
      writes.answer(Effect.succeed({ changed: 2, superseded: [0, 1], missing: [], refused: [] }))
      yield* batcher.add(agentA, facts(2))
      yield* batcher.add(agentB, facts(2))
      yield* batcher.flush
      assert.deepStrictEqual(
        published.map(({ agents }) => agents),
        [[agentB]]
      )
    })
  )
})
