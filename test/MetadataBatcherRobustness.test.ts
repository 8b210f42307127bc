/** What must not hold a batcher up, stop it or make it miscount: hung publishes, odd clocks, facts that are none. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Batcher from "../src/Batcher.ts"
import * as newestWins from "../src/internal/newestWins.ts"
import type { Metadata } from "../src/Metadata.ts"
import * as Store from "../src/Store.ts"
import { allChanged } from "../src/Store.ts"
import { agentIdOf, assertAddsUp, assertMetrics, fact, facts, rowsOf, start } from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]

describe("MetadataBatcher: a hung publish does not hold up writes", () => {
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
      const { batcher, close, publishes, until, writes } = yield* start({ maxBatchSize: 2 })
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
      assert.deepInclude(yield* batcher.accounting, { written: 5, discarded: 0 })
    })
  )

  it.effect("is given up after writeTimeout, and counted", () =>
    Effect.gen(function* () {
      const started = yield* start()
      started.publishes.answer(Effect.never)
      yield* started.batcher.add(agentA, facts(2))
      yield* TestClock.adjust("35 seconds")
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 2, agents: 1, publishErrors: 1 })
      assert.strictEqual((yield* started.logs.next("Warn")).at, 35_000)
    })
  )
})

describe("MetadataBatcher: clocks", () => {
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

describe("MetadataBatcher: facts that are no facts", () => {
  const none = undefined as unknown as Metadata
  const cases: ReadonlyArray<readonly [name: string, bad: Metadata]> = [
    ["undefined", none],
    ["null", null as unknown as Metadata],
    ["without a time", { key: "bad", value: "", error: "" } as unknown as Metadata]
  ]

  it.effect.each(cases)("cost only themselves: %s", ([, bad]) =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      yield* batcher.add(agentA, [fact("cpu", "7 %"), bad, fact("disk", "80 %")])
      yield* batcher.add(agentA, [bad])
      yield* batcher.add(agentB, facts(1))
      yield* batcher.flush
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.deepStrictEqual(writes.succeeded.flatMap(rowsOf), [
        [agentA, "cpu", "7 %", 0],
        [agentA, "disk", "80 %", 0],
        [agentB, "key 0", "", 0]
      ])
      assert.deepInclude(account, {
        offered: 5,
        written: 3,
        discarded: 2,
        queued: 0,
        pending: 0,
        inFlight: 0
      })
    })
  )

  it.effect("do not hide a fact under the same key", () =>
    Effect.gen(function* () {
      for (const collectedAt of ["now", null, { epochMilliseconds: Number.NaN }]) {
        const bad = { ...fact("cpu", "bad"), collectedAt } as unknown as Metadata
        const { batcher, writes } = yield* start()
        yield* batcher.add(agentA, [bad, fact("cpu", "good"), bad])
        yield* batcher.flush
        assert.include(JSON.stringify(writes.succeeded.flatMap(rowsOf)), "good")
        yield* assertAddsUp(yield* batcher.accounting)
      }
    })
  )

  it.effect("a whole report that is none neither throws nor ends the collector", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      yield* batcher.add(agentA, undefined as unknown as ReadonlyArray<Metadata>)
      yield* batcher.add(agentB, facts(1))
      yield* batcher.flush
      yield* assertAddsUp(yield* batcher.accounting)
      assert.deepStrictEqual(writes.succeeded.flatMap(rowsOf), [[agentB, "key 0", "", 0]])
    })
  )
})

describe("MetadataBatcher: flush", () => {
  it.effect("returns after close", () =>
    Effect.gen(function* () {
      const { batcher, close, writes } = yield* start()
      yield* batcher.add(agentA, facts(1))
      yield* close
      yield* batcher.flush
      assert.strictEqual(writes.calls.length, 1)
    })
  )

  it.effect("counts what it discards at once", () =>
    Effect.gen(function* () {
      const started = yield* start({ onWriteFailure: "discard" })
      started.writes.answer(Effect.fail(Store.unavailable("down")))
      yield* started.batcher.add(agentA, facts(3))
      yield* started.batcher.flush
      yield* assertMetrics(started, { batches: {}, flushed: 0, discarded: 3, agents: 0 })
    })
  )
})

describe("Batcher: a write that throws", () => {
  it.effect("is a failed one, like any that dies", () =>
    Effect.gen(function* () {
      let broken = true
      const batcher = yield* Batcher.make<newestWins.Report, newestWins.Row>({
        name: "Broken",
        kind: "broken",
        defaults: { maxBatchSize: 10, interval: "1 second", flushAtShare: 1 },
        accumulator: newestWins.make,
        write: (rows) => {
          if (broken) throw new TypeError("a bug")
          return Effect.succeed(allChanged(rows.length))
        },
        truncate: (report) => report,
        agentOf: ({ agentId }) => agentId,
        keyOf: ({ fact }) => fact.key
      })
      batcher.offerUnsafe({ agentId: agentA, facts: facts(2), size: 2, addedAt: 0, span: undefined })
      yield* batcher.flush
      assert.deepInclude(yield* batcher.accounting, { pending: 2, inFlight: 0 })
      broken = false
      yield* batcher.flush
      assert.deepInclude(yield* batcher.accounting, { written: 2 })
    })
  )
})
