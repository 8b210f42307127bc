/** When a batcher writes: at capacity, on schedule, one batch after the other, whatever the clock does. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { agentIdOf, fact, facts, start } from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]

describe("The schedule", () => {
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

describe("Clocks", () => {
  it.effect("flushes every interval, even when the wall clock is set back", () =>
    Effect.gen(function* () {
      const testClock = yield* Clock.Clock
      let offset = 3_600_000
      const wallClock: Clock.Clock = {
        ...testClock,
        currentTimeMillisUnsafe: () => testClock.currentTimeMillisUnsafe() + offset
      }
      const { batcher, writes } = yield* Effect.provideService(start(), Clock.Clock, wallClock)
      yield* TestClock.adjust("3 seconds")
      offset = 0
      yield* batcher.add(agentA, facts(1))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(writes.calls.length, 1)
    })
  )

  it.effect("sleeps until the next flush is due, at fractions of a millisecond too", () =>
    Effect.gen(function* () {
      const testClock = yield* Clock.Clock
      let sleeps = 0
      const countingClock: Clock.Clock = {
        ...testClock,
        sleep: (duration) =>
          Effect.suspend(() => {
            sleeps += 1
            return testClock.sleep(duration)
          })
      }
      for (let round = 0; round < 50; round++) {
        const { batcher, close, writes } = yield* Effect.provideService(
          start({ maxBatchSize: 1 }),
          Clock.Clock,
          countingClock
        )
        yield* TestClock.adjust((round * 37.793127) % 100)
        yield* batcher.add(agentA, facts(1))
        yield* writes.ended
        sleeps = 0
        yield* TestClock.adjust("7 seconds")
        yield* close
        // The rest of the interval, the next one, and no third.
        assert.isAtMost(sleeps, 3)
      }
    })
  )
})

describe("Much to write", () => {
  it.effect("writes any number of batches, one right after the other", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start({ maxBatchSize: 1, capacity: 10_000 })
      assert.strictEqual(batcher.addUnsafe(agentA, facts(3_000)), 3_000)
      yield* until(({ written }) => written === 3_000)
      batcher.addUnsafe(agentA, facts(1))
      yield* until(({ written }) => written === 3_001)
      // Nobody has moved the clock.
      assert.deepStrictEqual(new Set(writes.times), new Set([0]))
    })
  )

  it.effect("an agent that reports without end lets the others have their turn", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start({ maxBatchSize: 2 })
      let keys = 0
      const addNoise = (count: number) =>
        Effect.suspend(() => {
          if (keys >= 400) return Effect.void
          batcher.addUnsafe(
            agentA,
            Array.from({ length: count }, () => fact(`key ${keys++}`, ""))
          )
          return until(({ queued }) => queued === 0)
        })
      const gate = writes.hold()
      yield* addNoise(2)
      yield* writes.began
      yield* addNoise(4)
      batcher.addUnsafe(agentB, [fact("quiet", "")])
      yield* until(({ pending }) => pending === 5)
      writes.answerAll(() => addNoise(2))
      yield* gate.open
      yield* until(({ inFlight, pending }) => pending + inFlight <= 1)
      // After those that were in the write, and the four that came before it.
      assert.strictEqual(
        writes.calls.findIndex(({ keys }) => keys.includes("quiet")),
        3
      )
    })
  )
})
