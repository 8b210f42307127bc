/** The close of the scope writes what is left, in time, and says what is lost: law 4. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import {
  agentIdOf,
  assertMetrics,
  type Fault,
  fact,
  facts,
  makeWorld,
  start,
  warnings
} from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000
const down: Fault = { _tag: "Fail", reason: "Unavailable", millis: 0 }

describe("A shutdown", () => {
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

  it.effect("writes everything also when its owner is interrupted, before the close or during it", () =>
    Effect.gen(function* () {
      for (const millis of [0, 1_500]) {
        const world = yield* makeWorld({ maxBatchSize: 2 })
        world.inject({ write: [{ _tag: "Delay", millis: 1_000 }] })
        const owner = yield* MetadataBatcher.make({ maxBatchSize: 2 }).pipe(
          Effect.provideService(Store.Store, world.store),
          Effect.provideService(Pubsub.Pubsub, world.pubsub),
          Effect.tap((batcher) => batcher.add(agentA, facts(6))),
          Effect.andThen(millis === 0 ? Effect.never : Effect.void),
          Effect.scoped,
          Effect.forkChild({ startImmediately: true })
        )
        yield* TestClock.adjust(millis)
        assert.isUndefined(owner.pollUnsafe())
        owner.interruptUnsafe()
        yield* TestClock.adjust("10 seconds")
        assert.isDefined(owner.pollUnsafe())
        assert.strictEqual(world.held.size, 6)
      }
    })
  )

  it.effect("awaits the write in flight for all the time there is, if nothing else waits", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, inject, writes } = yield* start({ interval })
      inject({ write: [{ _tag: "Delay", millis: 14_000 }] })
      batcher.addUnsafe(agentA, facts(5))
      yield* TestClock.adjust(interval)
      yield* assertAccount({ inFlight: 5 })
      const { took } = yield* closeInTime
      assert.strictEqual(took, 14_000)
      yield* assertAccount({ written: 5, discarded: 0 })
      assert.strictEqual(writes.calls.length, 1)
    })
  )

  it.effect("does not let a write that hangs take the others with it", () =>
    Effect.gen(function* () {
      for (const interruptible of [true, false]) {
        const { assertAccount, batcher, closeInTime, writes } = yield* start({ interval, maxBatchSize: 10 })
        writes.answer(interruptible ? Effect.never : Effect.uninterruptible(Effect.never))
        batcher.addUnsafe(agentA, facts(10))
        yield* writes.began
        for (let agent = 2; agent < 10; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10))
        const { took } = yield* closeInTime
        // The hung write gets four fifths of the time; then everything is tried again.
        assert.isAtMost(took, 15_000)
        yield* assertAccount({ written: 90, discarded: 0 })
      }
    })
  )

  it.effect("nor one that is sent during the close", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, writes } = yield* start({ interval, maxBatchSize: 10 })
      writes.answer(Effect.never)
      // They are queued until the close, and make two batches.
      for (let agent = 1; agent <= 8; agent++) batcher.addUnsafe(agentIdOf(agent), facts(2))
      const { took } = yield* closeInTime
      assert.isAtMost(took, 15_000)
      yield* assertAccount({ written: 16, discarded: 0 })
    })
  )

  it.effect("loses one row, the locked one, while the store writes the others", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, rule } = yield* start({ interval })
      // As PgStore finds it, with a lock timeout within the statement.
      rule({
        refuses: ({ agentId, key }) =>
          agentId === agentA && key === "key 7" ? "the row is locked" : undefined,
        tells: "names"
      })
      for (let agent = 1; agent <= 30; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10))
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ refused: 1, written: 299 })
      for (let agent = 1; agent <= 30; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10, "new", 1))
      const { logs, took } = yield* closeInTime
      assert.isAtMost(took, 15_000)
      yield* assertAccount({ written: 2 * 299, discarded: 1 })
      assert.deepStrictEqual(
        logs.filter(({ level }) => level === "Error").map(({ message }) => message),
        ["closed with 1 rows that the store refused: they are lost"]
      )
    })
  )

  it.effect("loses nothing to a hung notification and one transient failure of a write", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, inject, writes } = yield* start({ interval })
      inject({ publish: [{ _tag: "Hang", interruptible: false }] })
      batcher.addUnsafe(agentA, facts(1))
      yield* batcher.flush.pipe(Effect.forkChild({ startImmediately: true }))
      yield* writes.ended
      for (let agent = 2; agent <= 41; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10))
      inject({ write: [down, { _tag: "Delay", millis: 1 }] })
      const { took } = yield* closeInTime
      assert.isAtMost(took, 15_000)
      yield* assertAccount({ written: 401, discarded: 0 })
    })
  )

  it.effect("while the store is dead ends at shutdownTimeout, counts what is lost and logs the count", () =>
    Effect.gen(function* () {
      for (const fault of [
        down,
        { _tag: "Hang", interruptible: false },
        { _tag: "Hang", interruptible: true }
      ] as const) {
        const { assertAccount, batcher, closeInTime, inject, metrics, valueOf } = yield* start({
          interval,
          maxBatchSize: 10
        })
        inject({ write: [fault] })
        batcher.addUnsafe(agentA, facts(25))
        yield* TestClock.adjust(interval)
        const { logs, took } = yield* closeInTime
        assert.strictEqual(took, 15_000)
        yield* assertAccount({ written: 0, discarded: 25, pending: 0, inFlight: 0, queued: 0 })
        assert.deepStrictEqual(
          logs.filter(({ level }) => level === "Error").map(({ message }) => message),
          ["closed with 25 rows unwritten: they are lost"]
        )
        assert.strictEqual((yield* valueOf(metrics.discarded)).count, 25)
      }
    })
  )

  it.effect("counts nothing twice when a write ends after the batcher has given up", () =>
    Effect.gen(function* () {
      for (const fault of [
        { _tag: "Late", millis: 2_500 },
        { _tag: "Delay", millis: 2_500 }
      ] as const) {
        const { assertAccount, batcher, closeInTime, inject } = yield* start({
          interval,
          shutdownTimeout: 2_000,
          // While this is told of what is lost, the write ends.
          onDiscarded: () => Effect.sleep("900 millis")
        })
        inject({ write: [fault] })
        batcher.addUnsafe(agentA, facts(5))
        yield* Effect.forkChild(batcher.flush, { startImmediately: true })
        yield* closeInTime
        const lost = { written: 0, discarded: 5, pending: 0, inFlight: 0, queued: 0 }
        yield* assertAccount(lost)
        yield* TestClock.adjust("1 minute")
        yield* assertAccount(lost)
      }
    })
  )

  it.effect("during an outage that ends in time loses nothing, in as many batches as it takes", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, held, inject, published } = yield* start({
        interval,
        maxBatchSize: 10
      })
      inject({ write: [down] })
      batcher.addUnsafe(agentA, facts(45))
      yield* TestClock.adjust("1 minute")
      // Still queued when the close begins.
      batcher.addUnsafe(agentB, facts(5))
      const closing = yield* Effect.forkChild(closeInTime)
      yield* TestClock.adjust("8 seconds")
      inject({ write: [] })
      const { logs, took } = yield* Fiber.join(closing)
      assert.isBelow(took, 15_000)
      yield* assertAccount({ written: 50, discarded: 0, dropped: 0 })
      assert.strictEqual(held.size, 50)
      assert.deepStrictEqual(new Set(published.flatMap(({ agents }) => agents)), new Set([agentA, agentB]))
      assert.isFalse(logs.some(({ level }) => level === "Error"))
    })
  )

  it.effect("takes no pause while the store answers, however long the search for refused rows takes", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, close, rule } = yield* start({ maxBatchSize: 500 })
      rule({ refuses: ({ value }) => (value === "bad" ? "invalid" : undefined) })
      for (let agent = 0; agent < 40; agent++) {
        yield* batcher.add(
          agentIdOf(agent),
          facts(10).map(({ key }, i) => fact(key, i % 5 === 4 ? "bad" : "good"))
        )
      }
      // Nobody moves the clock: a pause would last for ever.
      yield* close
      yield* assertAccount({ written: 320, discarded: 80 })
    })
  )

  it.effect("of 0 tries each batch once, without pauses, so that a test under TestClock ends", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, close, inject, writes } = yield* start({
        maxBatchSize: 2,
        shutdownTimeout: 0
      })
      inject({ write: [down], publish: [{ _tag: "Hang", interruptible: false }] })
      batcher.addUnsafe(agentA, facts(1))
      // Nobody moves the clock.
      yield* close
      yield* assertAccount({ discarded: 1, written: 0 })
      assert.strictEqual(writes.calls.length, 1)
    })
  )

  it.effect("of 0 awaits the one attempt up to writeTimeout, and no notification", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, inject } = yield* start({
        shutdownTimeout: 0,
        writeTimeout: "10 seconds"
      })
      inject({ write: [{ _tag: "Delay", millis: 9_000 }], publish: [{ _tag: "Hang", interruptible: false }] })
      batcher.addUnsafe(agentA, facts(3))
      assert.strictEqual((yield* closeInTime).took, 9_000)
      yield* assertAccount({ written: 3, discarded: 0 })
    })
  )

  it.effect("is not held up by a channel that hangs: everything is written first", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, inject } = yield* start({ maxBatchSize: 10 })
      inject({ publish: [{ _tag: "Hang", interruptible: false }] })
      batcher.addUnsafe(agentA, facts(50))
      const { took } = yield* closeInTime
      // So long the notifications under way are waited for.
      assert.strictEqual(took, 5_000)
      yield* assertAccount({ written: 50, discarded: 0 })
    })
  )

  it.effect("makes every later add a drop, said once", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, logs, metrics, valueOf } = yield* start()
      yield* batcher.add(agentA, facts(1))
      assert.strictEqual((yield* closeInTime).took, 0)
      yield* batcher.add(agentA, facts(2))
      assert.strictEqual(batcher.addUnsafe(agentA, facts(3)), 0)
      assert.include((yield* logs.next("Warn")).message, "closed")
      yield* TestClock.adjust("1 minute")
      yield* batcher.add(agentA, facts(4))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(warnings(logs.lines).length, 1)
      yield* assertAccount({ offered: 10, dropped: 9, written: 1 })
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

  it.effect("tells those of a failed notification in one last try", () =>
    Effect.gen(function* () {
      const { batcher, closeInTime, publishes } = yield* start({ interval: "1 hour" })
      publishes.answer(Effect.die("a bug in the pubsub"))
      batcher.addUnsafe(agentA, facts(1))
      yield* closeInTime
      assert.strictEqual(publishes.succeeded.length, 1)
    })
  )
})

describe("A shutdown whose store only refuses", () => {
  it.effect("ends in time, and counts all of it as lost", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, writes } = yield* start({ interval })
      writes.answerAll(() => Effect.fail(Store.rejected(new Error("a column was narrowed"))))
      for (let agent = 1; agent <= 5; agent++) batcher.addUnsafe(agentIdOf(agent), facts(2))
      assert.isAtMost((yield* closeInTime).took, 15_000)
      yield* assertAccount({ discarded: 10, written: 0 })
    })
  )
})
