/** Statements that are too much for the store are halved until they pass; batches stay what they were. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Store from "../src/Store.ts"
import { agentIdOf, fact, facts, start, warnings } from "./support/Fakes.ts"

const interval = 5_000

describe("Statements that are too long for the store", () => {
  for (const by of ["cancel", "silence"] as const) {
    it.effect(`are halved until they pass, and that size is kept: by ${by}`, () =>
      Effect.gen(function* () {
        const { assertAccount, batcher, logs, metrics, published, rule, valueOf, writes } = yield* start({
          interval,
          writeTimeout: 1_000
        })
        rule({ maxRows: { rows: 100, by } })
        for (let agent = 0; agent < 50; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10))
        yield* TestClock.adjust("1 minute")
        yield* assertAccount({ written: 500, refused: 0, pending: 0, discarded: 0 })
        const size = warnings(logs.lines).find(({ message }) => message.includes("too much"))
        assert.include(size?.message, "statements were too much for the store: at most")
        assert.isAtMost(size?.annotations["rows"] as number, 100)

        // From now on no statement is too long, but for one now and then that tries a larger one.
        const failedBefore = writes.log.filter(({ outcome }) => outcome === "failed").length
        const [batchesBefore, publishedBefore] = [(yield* valueOf(metrics.batchSize)).count, published.length]
        for (let agent = 0; agent < 50; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10, "", 1))
        yield* batcher.flush
        assert.strictEqual(writes.log.filter(({ outcome }) => outcome === "failed").length, failedBefore)
        // One batch, one notification, whatever the number of statements.
        assert.strictEqual((yield* valueOf(metrics.batchSize)).count, batchesBefore + 1)
        assert.strictEqual(published.length, publishedBefore + 1)
        yield* assertAccount({ written: 1_000, pending: 0 })
      })
    )
  }

  it.effect("grow again once the store takes them", () =>
    Effect.gen(function* () {
      const { batcher, rule, writes } = yield* start({ interval })
      rule({ maxRows: { rows: 100, by: "cancel" } })
      const round = (value: string) =>
        Effect.suspend(() => {
          for (let agent = 0; agent < 50; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10, value))
          return batcher.flush
        })
      yield* round("first")
      rule({})
      for (let i = 0; i < 40; i++) yield* round(`${i}`)
      const before = writes.calls.length
      yield* round("last")
      assert.strictEqual(writes.calls.length, before + 1)
      assert.strictEqual(writes.calls.at(-1)?.keys.length, 500)
    })
  )

  it.effect("grow again soon after an outage in which nothing was answered, however long it was", () =>
    Effect.gen(function* () {
      const { batcher, inject, writes } = yield* start({ interval, maxBatchSize: 500 })
      inject({ write: [{ _tag: "Hang", interruptible: true }] })
      batcher.addUnsafe(agentIdOf(1), facts(500))
      yield* TestClock.adjust("10 minutes")
      inject({ write: [] })
      for (let round = 0; round < 30; round++) {
        batcher.addUnsafe(agentIdOf(1), facts(500, "", round))
        yield* TestClock.adjust(interval)
      }
      assert.strictEqual(writes.calls.at(-1)?.keys.length, 500)
    })
  )

  it.effect("are tried ever more seldom while the store does not take them", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, metrics, rule, valueOf } = yield* start({ interval })
      rule({ maxRows: { rows: 100, by: "cancel" } })
      const canceled = Effect.map(
        valueOf(Metric.withAttributes(metrics.writeFailures, { reason: "Canceled" })),
        ({ count }) => count
      )
      for (let i = 0; i < 100; i++) {
        for (let agent = 0; agent < 50; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10, `${i}`))
        yield* batcher.flush
      }
      yield* assertAccount({ written: 50_000 })
      const before = yield* canceled
      for (let i = 0; i < 100; i++) {
        for (let agent = 0; agent < 50; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10, `${i}`))
        yield* batcher.flush
      }
      assert.isAtMost((yield* canceled) - before, 10)
    })
  )

  it.effect("whatever the reason, one of a single row is that row's affair", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule } = yield* start({ interval, maxBatchSize: 10 })
      rule({ maxRows: { rows: 1, by: "cancel" }, refuses: ({ key }) => (key === "key 3" ? "no" : undefined) })
      batcher.addUnsafe(agentIdOf(1), facts(10))
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 9, refused: 1, pending: 0 })
    })
  )

  it.effect("cost no row its write when everything is canceled for a while: an operator, a failover", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject } = yield* start({ interval })
      inject({ write: [{ _tag: "Fail", reason: "Canceled", millis: 0 }] })
      for (let agent = 0; agent < 50; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10))
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 0, refused: 0, discarded: 0 })
      inject({ write: [] })
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 500, refused: 0, pending: 0 })
    })
  )

  it.effect("by one cancellation is no warning", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, logs } = yield* start({ interval })
      inject({
        write: [
          { _tag: "Fail", reason: "Canceled", millis: 0 },
          ...Array(20).fill({ _tag: "Delay", millis: 0 })
        ]
      })
      batcher.addUnsafe(agentIdOf(1), facts(3))
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 3, refused: 0 })
      assert.isFalse(warnings(logs.lines).some(({ message }) => message.includes("unavailable")))
    })
  )
})

describe("An outage after a cancellation", () => {
  it.effect("is warned about as any other", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, logs, writes } = yield* start()
      writes.answer(
        Effect.fail(Store.canceled("user request")),
        Effect.fail(Store.unavailable(new Error("server is shutting down")))
      )
      yield* batcher.add(agentIdOf(1), facts(3))
      yield* TestClock.adjust("10 seconds")
      yield* assertAccount({ written: 3 })
      assert.include((yield* logs.next("Warn")).annotations["error"], "server is shutting down")
      yield* Effect.repeat(logs.next("Warn"), { until: ({ message }) => message.includes("available again") })
    })
  )
})

describe("maxBatchBytes", () => {
  it.effect("bounds every statement, not the batch", () =>
    Effect.gen(function* () {
      const { batcher, metrics, published, valueOf, writes } = yield* start({ maxBatchBytes: 10_000 })
      for (let agent = 0; agent < 20; agent++)
        batcher.addUnsafe(agentIdOf(agent), [fact("", "v".repeat(1_000))])
      yield* batcher.flush
      assert.deepStrictEqual(
        writes.calls.map(({ keys }) => keys.length),
        [5, 5, 5, 5]
      )
      assert.strictEqual((yield* valueOf(metrics.batchSize)).count, 1)
      assert.strictEqual(published.length, 1)
    })
  )

  it.effect("lets a row through that is larger by itself", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, writes } = yield* start({ maxBatchBytes: 100 })
      batcher.addUnsafe(agentIdOf(1), [fact("a", ""), fact("b", "v".repeat(1_000)), fact("c", "")])
      yield* batcher.flush
      yield* assertAccount({ written: 3 })
      assert.deepStrictEqual(
        writes.calls.map(({ keys }) => keys),
        [["a"], ["b"], ["c"]]
      )
    })
  )
})
