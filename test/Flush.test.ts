/** A flush that somebody asks for: it answers, it is shared, and it keeps the pause of an outage. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import type * as Batcher from "../src/Batcher.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf, assertMetrics, fact, facts, start } from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]

const flushed = (more: Partial<Batcher.Flushed>): Batcher.Flushed => ({
  written: 0,
  superseded: 0,
  unchanged: 0,
  refused: 0,
  discarded: 0,
  unwritten: 0,
  ...more
})

describe("A flush", () => {
  it.effect("waits for a write in flight and for the publish", () =>
    Effect.gen(function* () {
      const { batcher, publishes, writes } = yield* start({ maxBatchSize: 2 })
      const [write, publish] = [writes.hold(), publishes.hold()]
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      const flush = yield* Effect.forkChild(
        Effect.map(batcher.flush, (answer) => [writes.succeeded.length, publishes.succeeded.length, answer]),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      assert.isUndefined(flush.pollUnsafe())
      yield* write.open
      yield* publishes.began
      yield* TestClock.adjust("1 second")
      assert.isUndefined(flush.pollUnsafe())
      yield* publish.open
      assert.deepStrictEqual(yield* Fiber.join(flush), [1, 1, flushed({ written: 2 })])
    })
  )

  it.effect("writes what is still queued", () =>
    Effect.gen(function* () {
      const started = yield* start()
      started.batcher.addUnsafe(agentA, facts(3))
      assert.deepInclude(yield* started.batcher.accounting, { queued: 3, pending: 0 })
      assert.deepStrictEqual(yield* started.batcher.flush, flushed({ written: 3 }))
      assert.deepInclude(yield* started.batcher.accounting, { queued: 0, written: 3 })
      yield* assertMetrics(started, { batches: { manual: 1 }, flushed: 3, agents: 1 })
    })
  )

  it.effect("leaves the schedule as it is", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      yield* TestClock.adjust("3 seconds")
      yield* batcher.add(agentA, facts(1))
      yield* batcher.flush
      yield* batcher.add(agentA, facts(1))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(writes.times, [3000, 5000])
    })
  )

  it.effect("returns while more is added and written", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start({ maxBatchSize: 2 })
      let isBusy = true
      // The next batch is there before this one is written.
      writes.answerAll(() =>
        Effect.suspend(() => {
          if (!isBusy) return Effect.void
          batcher.addUnsafe(agentA, facts(2))
          return Effect.asVoid(until(({ pending }) => pending >= 2))
        })
      )
      batcher.addUnsafe(agentA, facts(2))
      yield* writes.began
      yield* batcher.flush
      isBusy = false
      yield* until(({ inFlight, pending, queued }) => queued + pending + inFlight === 0)
    })
  )

  it.effect("returns when the batcher closes during an outage, and says what is left", () =>
    Effect.gen(function* () {
      const { batcher, closeInTime, inject } = yield* start()
      inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      yield* batcher.add(agentA, facts(5))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* batcher.status)._tag, "Unavailable")
      const flush = yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* closeInTime
      assert.deepInclude(yield* Fiber.join(flush), { written: 0, unwritten: 5 })
    })
  )

  const closes = [
    { onWriteFailure: "requeue", batches: 1, wait: 0 },
    { onWriteFailure: "discard", batches: 3, wait: 350 }
  ] as const
  it.effect.each(closes)("answers whoever waits when the batcher closes, whatever that gives up: %o", (how) =>
    Effect.gen(function* () {
      const { batcher, close, inject } = yield* start({
        maxBatchSize: 1,
        onWriteFailure: how.onWriteFailure,
        shutdownTimeout: 500,
        writeTimeout: 300
      })
      const ask = Effect.forkChild(batcher.flush, { startImmediately: true })
      inject({ write: [{ _tag: "Hang", interruptible: true }] })
      batcher.addUnsafe(agentA, facts(how.batches))
      const flushes = [yield* ask]
      yield* TestClock.adjust(how.wait)
      flushes.push(yield* ask)
      const closed = yield* Effect.forkChild(close, { startImmediately: true })
      yield* TestClock.adjust(100)
      flushes.push(yield* ask)
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(closed)
      assert.deepStrictEqual(
        flushes.map((flush) => flush.pollUnsafe()?._tag),
        ["Success", "Success", "Success"]
      )
    })
  )

  it.effect("returns after the close, having done nothing", () =>
    Effect.gen(function* () {
      const { batcher, close, writes } = yield* start()
      yield* batcher.add(agentA, facts(1))
      yield* close
      assert.deepStrictEqual(yield* batcher.flush, flushed({}))
      assert.strictEqual(writes.calls.length, 1)
    })
  )
})

describe("A flush answers", () => {
  it.effect("what became of the rows that waited, whatever that was, and they add up", () =>
    Effect.gen(function* () {
      const { batcher, rule } = yield* start({ maxBatchSize: 4 })
      yield* batcher.add(agentB, [fact("held newer", "new", 9)])
      yield* batcher.flush
      rule({ refuses: ({ key }) => (key === "bad" ? "no" : undefined), tells: "names" })
      yield* batcher.add(agentB, [fact("held newer", "old", 1)])
      yield* batcher.add(agentA, [...facts(8), fact("bad", "")])
      assert.deepStrictEqual(yield* batcher.flush, flushed({ written: 8, superseded: 1, refused: 1 }))
      // The refused one waits apart, and is told of again.
      assert.deepStrictEqual(yield* batcher.flush, flushed({ refused: 1 }))
    })
  )

  it.effect("with what could not be written when the store goes away in the middle", () =>
    Effect.gen(function* () {
      const { batcher, inject } = yield* start({ maxBatchSize: 4, interval: "1 minute" })
      inject({
        write: [
          { _tag: "Delay", millis: 10 },
          { _tag: "Fail", reason: "Unavailable", millis: 0 }
        ]
      })
      batcher.addUnsafe(agentA, facts(3))
      batcher.addUnsafe(agentB, facts(3))
      const flush = yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* TestClock.adjust("20 millis")
      assert.deepStrictEqual(yield* Fiber.join(flush), flushed({ written: 4, unwritten: 2 }))
    })
  )

  it.effect("with what was discarded because the write failed", () =>
    Effect.gen(function* () {
      const started = yield* start({ onWriteFailure: "discard" })
      started.writes.answer(Effect.fail(Store.unavailable("down")))
      yield* started.batcher.add(agentA, facts(3))
      assert.deepStrictEqual(yield* started.batcher.flush, flushed({ discarded: 3 }))
      yield* assertMetrics(started, { batches: {}, flushed: 0, discarded: 3, agents: 0 })
    })
  )

  it.effect("with what rests because it says what was last written", () =>
    Effect.gen(function* () {
      const { batcher } = yield* start({ unchanged: "1 minute" })
      yield* batcher.add(agentA, facts(3, "same", 0))
      assert.deepStrictEqual(yield* batcher.flush, flushed({ written: 3 }))
      yield* batcher.add(agentA, [...facts(2, "same", 1), fact("key 2", "other", 1)])
      assert.deepStrictEqual(yield* batcher.flush, flushed({ written: 1, unchanged: 2 }))
    })
  )
})

describe("Many who ask for a flush", () => {
  it.effect("share the next one", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      const gate = writes.hold()
      batcher.addUnsafe(agentA, facts(1))
      const first = yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* writes.began
      batcher.addUnsafe(agentB, facts(2))
      const others = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 1_000 }), () => batcher.flush, { concurrency: "unbounded" }),
        { startImmediately: true }
      )
      yield* gate.open
      assert.deepStrictEqual(yield* Fiber.join(first), flushed({ written: 1 }))
      for (const answer of yield* Fiber.join(others)) {
        assert.deepStrictEqual(answer, flushed({ written: 2 }))
      }
      assert.strictEqual(writes.calls.length, 2)
    })
  )

  it.effect("during an outage wait for the next attempt: the pause between two holds", () =>
    Effect.gen(function* () {
      const { batcher, inject, writes } = yield* start({ interval: "1 minute" })
      inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      batcher.addUnsafe(agentA, facts(3))
      assert.deepStrictEqual(yield* batcher.flush, flushed({ unwritten: 3 }))
      for (let round = 0; round < 4; round++) {
        const before = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 1_000 }), () => batcher.flush, { concurrency: "unbounded" }),
          { startImmediately: true }
        )
        while (before.pollUnsafe() === undefined) yield* TestClock.adjust("10 millis")
        for (const answer of yield* Fiber.join(before)) {
          assert.deepStrictEqual(answer, flushed({ unwritten: 3 }))
        }
      }
      // The first of each thousand has an attempt, all others share the next one.
      assert.isAtMost(writes.calls.length, 1 + 4 * 2)
      for (let i = 1; i < writes.times.length; i++) {
        assert.isAtLeast((writes.times[i] ?? 0) - (writes.times[i - 1] ?? 0), 80)
      }
      inject({ write: [] })
      const last = yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      while (last.pollUnsafe() === undefined) yield* TestClock.adjust("10 millis")
      assert.strictEqual((yield* batcher.accounting).written, 3)
    })
  )
})
