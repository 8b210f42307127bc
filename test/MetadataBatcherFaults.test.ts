/** What a batcher does about full queues, failed writes and publishes, and facts that are none. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import type { MetadataBatch } from "../src/Metadata.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import {
  agentIdOf,
  assertAddsUp,
  assertMetrics,
  fact,
  facts,
  refusing,
  rowsOf,
  start
} from "./support/Fakes.ts"

const [agentA, agentB, agentC] = [agentIdOf(1), agentIdOf(2), agentIdOf(3)]
const unavailable = Effect.fail(Store.unavailable(new Error("server is shutting down")))

describe("MetadataBatcher: a full queue", () => {
  it.effect("takes as many facts of a report as there is room for", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start({ maxBatchSize: 2, capacity: 4 })
      assert.strictEqual(batcher.addUnsafe(agentA, facts(3)), 3)
      assert.strictEqual(batcher.addUnsafe(agentB, facts(3)), 1)
      assert.strictEqual(batcher.addUnsafe(agentB, facts(3)), 0)
      assert.strictEqual(batcher.addUnsafe(agentB, []), 0)
      assert.deepInclude(yield* batcher.accounting, { offered: 9, queued: 4, dropped: 5 })
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.flatMap(rowsOf), [
        [agentA, "key 0", "", 0],
        [agentA, "key 1", "", 0],
        [agentA, "key 2", "", 0],
        [agentB, "key 0", "", 0]
      ])
    })
  )

  it.effect("is warned about at most every 10 s, with agent, capacity and count since the last one", () =>
    Effect.gen(function* () {
      const { batcher, logs } = yield* start({ maxBatchSize: 2 })
      const drop = Effect.fnUntraced(function* (count: number) {
        // Fills the queue and offers `count` more before anybody can take from it.
        batcher.addUnsafe(agentA, facts(10))
        assert.strictEqual(batcher.addUnsafe(agentB, facts(count)), 0)
        yield* batcher.flush
      })
      yield* drop(1)
      const first = yield* logs.next("Warn")
      assert.match(first.message, /dropped 1$/)
      assert.deepInclude(first.annotations, { agent: agentB, capacity: 10 })
      yield* TestClock.adjust("1 second")
      yield* drop(2)
      yield* TestClock.adjust("8999 millis")
      yield* drop(3)
      yield* TestClock.adjust("1 millis")
      yield* drop(4)
      const second = yield* logs.next("Warn")
      assert.match(second.message, /dropped 9$/)
      assert.deepInclude(second.annotations, { agent: agentB, capacity: 10 })
      const debug = logs.lines.filter((line) => line.level === "Debug" && line.message.includes("dropped"))
      assert.deepStrictEqual(
        debug.map(({ message }) => /\d+$/.exec(message)?.[0]),
        ["2", "3"]
      )
    })
  )

  it.effect("at maxPending keys that wait already still fold, new keys are dropped", () =>
    Effect.gen(function* () {
      const started = yield* start({ maxBatchSize: 2, maxPending: 4 })
      const { batcher, logs, until, writes } = started
      const gate = writes.hold()
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      yield* batcher.add(agentB, facts(2, "old", 0))
      yield* batcher.add(agentB, facts(3, "new", 1))
      yield* batcher.add(agentC, facts(1))
      yield* until(({ queued }) => queued === 0)
      assert.deepInclude(yield* batcher.accounting, { inFlight: 2, pending: 2, superseded: 2, dropped: 2 })
      assert.deepInclude((yield* logs.next("Warn")).annotations, { maxPending: 4 })
      yield* gate.open
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.slice(1).map(rowsOf), [
        [
          [agentB, "key 0", "new", 1],
          [agentB, "key 1", "new", 1]
        ]
      ])
      assert.strictEqual((yield* started.valueOf(started.metrics.dropped)).count, 2)
    })
  )
})

describe("MetadataBatcher: newest wins", () => {
  it.effect("of two facts collected at the same time the later add wins", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      yield* batcher.add(agentA, [fact("cpu", "first", 1), fact("cpu", "second", 1)])
      yield* batcher.add(agentA, [fact("cpu", "third", 1)])
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.map(rowsOf), [[[agentA, "cpu", "third", 1]]])
    })
  )

  it.effect("also between a batch whose write failed and what came since", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start()
      const gate = writes.hold(unavailable)
      yield* batcher.add(agentA, [fact("older", "new", 2), fact("same", "old", 2), fact("newer", "old", 2)])
      yield* batcher.add(agentA, [fact("alone", "old", 2)])
      yield* TestClock.adjust("5 seconds")
      yield* batcher.add(agentA, [fact("older", "old", 1), fact("same", "new", 2), fact("newer", "new", 3)])
      yield* until(({ pending }) => pending === 3)
      yield* gate.open
      yield* until(({ inFlight }) => inFlight === 0)
      assert.deepInclude(yield* batcher.accounting, { pending: 4, superseded: 3 })
      yield* batcher.flush
      assert.deepStrictEqual(writes.succeeded.map(rowsOf), [
        [
          [agentA, "alone", "old", 2],
          [agentA, "newer", "new", 3],
          [agentA, "older", "new", 2],
          [agentA, "same", "new", 2]
        ]
      ])
    })
  )
})

describe("MetadataBatcher: a failed write", () => {
  it.effect("publishes nothing, leaves success metrics untouched and is tried again", () =>
    Effect.gen(function* () {
      const started = yield* start()
      const { batcher, logs, metrics, publishes, until, valueOf, writes } = started
      writes.answer(unavailable)
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("5 seconds")
      yield* until(({ pending }) => pending === 3)
      assert.deepStrictEqual(publishes.calls, [])
      yield* assertMetrics(started, { batches: {}, flushed: 0, agents: 0 })
      const failures = yield* valueOf(Metric.withAttributes(metrics.writeFailures, { reason: "Unavailable" }))
      assert.strictEqual(failures.count, 1)
      const warning = yield* logs.next("Warn")
      assert.include(warning.annotations["error"], "server is shutting down")
      // The first retry comes after about 100 ms.
      yield* TestClock.adjust("1 second")
      assert.strictEqual(publishes.succeeded.length, 1)
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 3, agents: 1 })
    })
  )

  it.effect("is one warning when it begins, one a minute and one when it ends", () =>
    Effect.gen(function* () {
      const { batcher, logs, until, writes } = yield* start()
      writes.answerAll(() => unavailable)
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("140 seconds")
      writes.answerAll(() => Effect.void)
      yield* TestClock.adjust("5 seconds")
      yield* until(({ written }) => written === 3)
      const warnings = logs.lines.filter(({ level }) => level === "Warn")
      assert.deepStrictEqual(
        warnings.map(({ message }) => /^store (still )?(un)?available( again)?/.exec(message)?.[0]),
        ["store unavailable", "store still unavailable", "store still unavailable", "store available again"]
      )
      assert.deepInclude(warnings[1]?.annotations, { pending: 3, dropped: 0 })
      assert.isAbove(writes.calls.length, 140 / 5)
      // One attempt at a time, never further apart than the interval.
      for (let i = 1; i < writes.times.length; i++) {
        assert.isAtMost((writes.times[i] ?? 0) - (writes.times[i - 1] ?? 0), 5000)
      }
    })
  )

  it.effect("by cancellation is no more than a debug line", () =>
    Effect.gen(function* () {
      const { batcher, logs, until, writes } = yield* start()
      writes.answer(Effect.fail(Store.canceled(new Error("canceling statement due to user request"))))
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("6 seconds")
      yield* until(({ written }) => written === 3)
      assert.isTrue(
        logs.lines.some(({ annotations }) => String(annotations["error"]).includes("user request"))
      )
      assert.deepStrictEqual(new Set(logs.lines.map(({ level }) => level)), new Set(["Debug"]))
    })
  )

  it.effect("after a cancellation is warned about as any other", () =>
    Effect.gen(function* () {
      const { batcher, logs, until, writes } = yield* start()
      writes.answer(Effect.fail(Store.canceled("user request")), unavailable)
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("10 seconds")
      yield* until(({ written }) => written === 3)
      assert.include((yield* logs.next("Warn")).annotations["error"], "server is shutting down")
      assert.include((yield* logs.next("Warn")).message, "available again")
    })
  )

  it.effect("gives its batch up with onWriteFailure: discard", () =>
    Effect.gen(function* () {
      const started = yield* start({ onWriteFailure: "discard" })
      started.writes.answer(unavailable)
      yield* started.batcher.add(agentA, facts(3))
      yield* TestClock.adjust("5 seconds")
      yield* started.until(({ discarded }) => discarded === 3)
      assert.include((yield* started.logs.next("Warn")).message, "server is shutting down")
      yield* started.batcher.add(agentA, facts(2))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.times, [5000, 10_000])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 2, discarded: 3, agents: 1 })
    })
  )

  it.effect("is one that takes longer than writeTimeout, and is repeated", () =>
    Effect.gen(function* () {
      const { batcher, logs, until, writes } = yield* start({ writeTimeout: "10 seconds" })
      writes.answer(Effect.never)
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("14999 millis")
      assert.deepInclude(yield* batcher.accounting, { inFlight: 3 })
      yield* TestClock.adjust("1 millis")
      assert.deepInclude(yield* batcher.accounting, { inFlight: 0, pending: 3 })
      assert.include((yield* logs.next("Warn")).annotations["error"], "10000 ms")
      yield* TestClock.adjust("1 second")
      yield* until(({ written }) => written === 3)
      assert.deepStrictEqual(writes.calls.map(rowsOf)[1], writes.calls.map(rowsOf)[0])
    })
  )

  it.effect("that throws or dies is repeated too", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start()
      writes.answer(Effect.die(new TypeError("a bug in the store")))
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("6 seconds")
      yield* until(({ written }) => written === 3)
    })
  )
})

describe("MetadataBatcher: a failed publish", () => {
  it.effect("is counted and logged, the flush still a success, and the write never repeated", () =>
    Effect.gen(function* () {
      const started = yield* start()
      const { batcher, logs, publishes, writes } = started
      publishes.answer(Effect.fail(Pubsub.unavailable(new Error("connection refused"))))
      yield* batcher.add(agentA, facts(3))
      yield* TestClock.adjust("5 seconds")
      const warning = yield* logs.next("Warn")
      assert.include(`${warning.message} ${warning.annotations["error"]}`, "connection refused")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(writes.calls.length, 1)
      assert.strictEqual(publishes.calls.length, 1)
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 3, agents: 1, publishErrors: 1 })
    })
  )

  it.effect("counts every notification", () =>
    Effect.gen(function* () {
      const started = yield* start()
      started.publishes.answer(Effect.die("a bug in the pubsub"))
      for (let agent = 0; agent < 400; agent++) yield* started.batcher.add(agentIdOf(agent), facts(1))
      yield* started.batcher.flush
      yield* assertMetrics(started, { batches: { manual: 1 }, flushed: 400, agents: 400, publishErrors: 2 })
    })
  )
})

describe("MetadataBatcher: rows the store rejects", () => {
  /** Refuses batches that hold a bad value, with or without naming the rows. */
  const refuseBad =
    (naming: boolean) =>
    ({ values }: MetadataBatch) => {
      const bad = values.flatMap((value, row) => (value === "bad" ? [row] : []))
      return bad.length === 0 || naming
        ? Effect.succeed(refusing(values.length, bad))
        : Effect.fail(Store.rejected(new Error("invalid")))
    }

  it.effect.each([true, false])("cost no other row its write; rows named: %s", (naming) =>
    Effect.gen(function* () {
      const started = yield* start()
      const { batcher, logs, writes } = started
      writes.answerAll(refuseBad(naming))
      for (let agent = 0; agent < 499; agent++) {
        yield* batcher.add(agentIdOf(agent), [fact("cpu", agent === 321 ? "bad" : "good")])
      }
      yield* batcher.flush
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { written: 498, discarded: 1, pending: 0, inFlight: 0 })
      const warning = yield* logs.next("Warn")
      assert.deepStrictEqual(warning.annotations["rows"], [{ agent: agentIdOf(321), key: "cpu" }])
      assert.notInclude(JSON.stringify([warning.message, warning.annotations]), "bad")
      assert.isAtMost(writes.calls.length, naming ? 2 : 19)
      yield* assertMetrics(started, { batches: { manual: 1 }, flushed: 498, discarded: 1, agents: 498 })
    })
  )

  it.effect("cost a bounded number of statements, however many they are", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start({ interval: "1 minute" })
      writes.answerAll(refuseBad(false))
      for (let agent = 0; agent < 499; agent++) {
        yield* batcher.add(agentIdOf(agent), [fact("cpu", agent % 10 === 0 ? "bad" : "good")])
      }
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(writes.calls.length, 65)
      yield* TestClock.adjust("20 minutes")
      yield* until(({ pending, inFlight }) => pending + inFlight === 0)
      assert.deepInclude(yield* batcher.accounting, { written: 449, discarded: 50 })
    })
  )
})
