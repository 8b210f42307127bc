/** When a batcher flushes, and what waits for a flush. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { agentIdOf, assertAddsUp, assertMetrics, fact, facts, start } from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]

describe("MetadataBatcher: schedule", () => {
  it.effect("after a capacity flush the next scheduled flush is one interval from it", () =>
    Effect.gen(function* () {
      const { batcher, publishes, until, writes } = yield* start({ maxBatchSize: 2 })
      yield* TestClock.adjust("3 seconds")
      yield* batcher.add(agentA, facts(2))
      yield* publishes.ended
      yield* batcher.add(agentA, [fact("cpu", "")])
      yield* until(({ pending }) => pending === 1)
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(writes.times, [3000])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(writes.times, [3000, 8000])
      // From then on every interval again.
      yield* batcher.add(agentA, [fact("cpu", "")])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(writes.times, [3000, 8000, 13_000])
    })
  )

  it.effect("a scheduled flush that finds nothing does no statement, no publish, no metric", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.batcher.add(agentA, facts(3))
      yield* TestClock.adjust("5 seconds")
      const before = yield* started.snapshot
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* started.snapshot, before)
      assert.deepStrictEqual(started.writes.times, [5000])
      assert.strictEqual(started.publishes.calls.length, 1)
    })
  )

  it.effect("writes more than a batch as several, the longest waiting first", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start({ maxBatchSize: 2, interval: "1 minute" })
      const gate = writes.hold()
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      yield* batcher.add(agentA, facts(3, "later"))
      yield* batcher.add(agentB, facts(2, "latest"))
      yield* until(({ pending }) => pending === 5)
      yield* gate.open
      yield* batcher.flush
      assert.deepStrictEqual(
        writes.calls.map(({ agentIds, keys }) => keys.map((key, row) => [agentIds[row], key])),
        [
          [
            [agentA, "key 0"],
            [agentA, "key 1"]
          ],
          [
            [agentA, "key 0"],
            [agentA, "key 1"]
          ],
          [
            [agentA, "key 2"],
            [agentB, "key 0"]
          ],
          [[agentB, "key 1"]]
        ]
      )
    })
  )

  it.effect("one write at a time, or as many as writeConcurrency", () =>
    Effect.gen(function* () {
      for (const writeConcurrency of [1, 3]) {
        const { batcher, until, writes } = yield* start({ maxBatchSize: 2, writeConcurrency })
        const gates = [writes.hold(), writes.hold(), writes.hold(), writes.hold()]
        yield* batcher.add(agentA, facts(8))
        yield* until(({ inFlight, queued }) => queued === 0 && inFlight === 2 * writeConcurrency)
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(writes.calls.length, writeConcurrency)
        for (const gate of gates) yield* gate.open
        yield* batcher.flush
        assert.strictEqual(writes.succeeded.length, 4)
      }
    })
  )
})

describe("MetadataBatcher: flush", () => {
  it.effect("waits for a write in flight and for the publish", () =>
    Effect.gen(function* () {
      const { batcher, publishes, writes } = yield* start({ maxBatchSize: 2 })
      const [write, publish] = [writes.hold(), publishes.hold()]
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      const flushed = yield* Effect.forkChild(
        Effect.andThen(
          batcher.flush,
          Effect.sync(() => [writes.succeeded.length, publishes.succeeded.length])
        ),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      assert.isUndefined(flushed.pollUnsafe())
      yield* write.open
      yield* publishes.began
      yield* TestClock.adjust("1 second")
      assert.isUndefined(flushed.pollUnsafe())
      yield* publish.open
      assert.deepStrictEqual(yield* Fiber.join(flushed), [1, 1])
    })
  )

  it.effect("writes what is still queued", () =>
    Effect.gen(function* () {
      const started = yield* start()
      started.batcher.addUnsafe(agentA, facts(3))
      assert.deepInclude(yield* started.batcher.accounting, { queued: 3, pending: 0 })
      yield* started.batcher.flush
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
})

describe("MetadataBatcher: close", () => {
  it.effect("drains the queue and awaits a write in flight", () =>
    Effect.gen(function* () {
      const started = yield* start({ maxBatchSize: 2 })
      const { batcher, close, publishes, writes } = started
      const gate = writes.hold()
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      batcher.addUnsafe(agentB, facts(3))
      const closed = yield* Effect.forkChild(close, { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(closed.pollUnsafe())
      assert.deepInclude(yield* batcher.accounting, { inFlight: 2, pending: 3, queued: 0 })
      yield* gate.open
      yield* Fiber.join(closed)
      assert.deepStrictEqual(
        writes.succeeded.map(({ keys }) => keys.length),
        [2, 2, 1]
      )
      assert.strictEqual(publishes.succeeded.length, 3)
      yield* assertMetrics(started, { batches: { capacity: 1, shutdown: 2 }, flushed: 5, agents: 3 })
    })
  )

  it.effect("gives up after shutdownTimeout, and says how much is lost", () =>
    Effect.gen(function* () {
      const { batcher, close, logs, metrics, valueOf, writes } = yield* start({ maxBatchSize: 2 })
      writes.answer(Effect.never)
      batcher.addUnsafe(agentA, facts(3))
      yield* writes.began
      const closed = yield* Effect.forkChild(close, { startImmediately: true })
      yield* TestClock.adjust("14999 millis")
      assert.isUndefined(closed.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(closed)
      assert.include((yield* logs.next("Error")).message, "3 rows")
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { discarded: 3, pending: 0, inFlight: 0, queued: 0 })
      assert.strictEqual((yield* valueOf(metrics.discarded)).count, 3)
    })
  )

  it.effect("an add after it is dropped, counted and said once", () =>
    Effect.gen(function* () {
      const { batcher, close, logs, metrics, valueOf } = yield* start()
      yield* batcher.add(agentA, facts(1))
      yield* close
      yield* batcher.add(agentA, facts(2))
      assert.strictEqual(batcher.addUnsafe(agentA, facts(3)), 0)
      assert.include((yield* logs.next("Warn")).message, "closed")
      yield* TestClock.adjust("1 minute")
      yield* batcher.add(agentA, facts(4))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(logs.lines.filter(({ level }) => level === "Warn").length, 1)
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { offered: 10, dropped: 9, written: 1 })
      assert.strictEqual((yield* valueOf(metrics.dropped)).count, 9)
    })
  )

  it.effect("takes the gauges with it", () =>
    Effect.gen(function* () {
      const { batcher, close, metrics, valueOf } = yield* start()
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual((yield* valueOf(metrics.pending)).value, 3)
      assert.deepStrictEqual((yield* valueOf(metrics.oldestPendingAge)).value, 3)
      yield* close
      assert.deepStrictEqual((yield* valueOf(metrics.pending)).value, 0)
      assert.deepStrictEqual((yield* valueOf(metrics.oldestPendingAge)).value, 0)
    })
  )
})
