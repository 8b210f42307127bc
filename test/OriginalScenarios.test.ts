/** The scenarios that the Go original is tested with. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { metadataBatchChannel } from "../src/MetadataBatcher.ts"
import {
  agentIdOf,
  agentsOf,
  assertMetrics,
  fact,
  facts,
  rowsOf,
  type Started,
  start
} from "./support/Fakes.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]

describe("The scenarios of the original", () => {
  it.effect("empty flush does nothing", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.batcher.flush
      yield* TestClock.adjust("1 minute")
      yield* started.close
      assert.deepStrictEqual(started.writes.calls, [])
      assert.deepStrictEqual(started.publishes.calls, [])
      yield* assertMetrics(started, { batches: {}, flushed: 0, agents: 0 })
    })
  )

  it.effect("two facts of one agent in one write and one publish", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.batcher.add(agentA, [fact("cpu", "7 %", 1), fact("disk", "80 %", 2, "almost full")])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.calls, [
        {
          agentIds: [agentA, agentA],
          keys: ["cpu", "disk"],
          values: ["7 %", "80 %"],
          errors: ["", "almost full"],
          collectedAt: [1, 2]
        }
      ])
      assert.deepStrictEqual(started.writes.times, [5000])
      assert.strictEqual(started.publishes.calls.length, 1)
      const [publication] = started.publishes.calls
      assert.strictEqual(publication?.channel, metadataBatchChannel)
      assert.deepStrictEqual(publication?.payloads.map(agentsOf), [[agentA]])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 2, agents: 1 })
    })
  )

  it.effect("five facts of two agents", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.batcher.add(agentA, facts(2, "a"))
      yield* started.batcher.add(agentB, facts(3, "b"))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.calls.map(rowsOf), [
        [
          [agentA, "key 0", "a", 0],
          [agentA, "key 1", "a", 0],
          [agentB, "key 0", "b", 0],
          [agentB, "key 1", "b", 0],
          [agentB, "key 2", "b", 0]
        ]
      ])
      assert.deepStrictEqual(payloadsOf(started), [[agentA, agentB]])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 5, agents: 2 })
      // Which buckets the two agents' key counts fall into.
      const { buckets } = yield* started.valueOf(started.metrics.batchUtilization)
      assert.deepStrictEqual(
        buckets.slice(0, 4).map(([boundary, count]) => [boundary, count]),
        [
          [1, 0],
          [2, 1],
          [3, 2],
          [4, 2]
        ]
      )
    })
  )

  it.effect("500 agents flush by capacity with exactly 2 publishes (363 + 137)", () =>
    Effect.gen(function* () {
      const started = yield* start()
      for (let agent = 0; agent < 500; agent++)
        yield* started.batcher.add(agentIdOf(agent), [fact("cpu", "")])
      yield* started.publishes.ended
      // Waits for the flush under way; there is nothing left to write.
      yield* started.batcher.flush
      assert.deepStrictEqual(started.writes.times, [0])
      assert.deepStrictEqual(
        payloadsOf(started).map((agents) => agents.length),
        [363, 137]
      )
      assert.deepStrictEqual(new Set(payloadsOf(started).flat()), new Set(agentIds(500)))
      yield* assertMetrics(started, { batches: { capacity: 1 }, flushed: 500, agents: 500 })
    })
  )

  it.effect("drops when full: keys, for a burst of updates is folded where the original drops", () =>
    Effect.gen(function* () {
      const started = yield* start({ maxBatchSize: 2, capacity: 10, maxPending: 10 })
      const { batcher } = started
      // In one go, so that nobody takes from the queue in between.
      const taken = Array.from({ length: 12 }, (_, agent) =>
        batcher.addUnsafe(agentIdOf(agent), [fact("", "")])
      )
      assert.deepStrictEqual(taken, [...Array(10).fill(1), 0, 0])
      yield* started.assertAccount({ offered: 12, dropped: 2 })
      yield* batcher.flush
      yield* started.assertAccount({ dropped: 2, written: 10 })
      assert.strictEqual((yield* started.valueOf(started.metrics.dropped)).count, 2)
    })
  )

  it.effect("last update per key wins", () =>
    Effect.gen(function* () {
      const started = yield* start()
      for (const [at, value] of ["first", "second", "third"].entries()) {
        yield* started.batcher.add(agentA, [fact("cpu", value, at)])
      }
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.calls.map(rowsOf), [[[agentA, "cpu", "third", 2]]])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 1, superseded: 2, agents: 1 })
    })
  )

  it.effect("mixed keys dedupe", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.batcher.add(agentA, [fact("cpu", "old", 0), fact("disk", "only", 0)])
      yield* started.batcher.add(agentB, [fact("cpu", "another agent's", 0)])
      yield* started.batcher.add(agentA, [fact("cpu", "new", 1), fact("ram", "only", 1)])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.calls.map(rowsOf), [
        [
          [agentA, "cpu", "new", 1],
          [agentA, "disk", "only", 0],
          [agentA, "ram", "only", 1],
          [agentB, "cpu", "another agent's", 0]
        ]
      ])
      assert.deepStrictEqual(payloadsOf(started), [[agentA, agentB]])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 4, superseded: 1, agents: 2 })
    })
  )

  it.effect("timestamp ordering (t2, then t1, then t3 gives t3)", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.batcher.add(agentA, [fact("cpu", "t2", 2)])
      yield* started.batcher.add(agentA, [fact("cpu", "t1", 1)])
      yield* started.until(({ superseded }) => superseded === 1)
      assert.deepInclude(yield* started.batcher.accounting, { pending: 1 })
      yield* started.batcher.add(agentA, [fact("cpu", "t3", 3)])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.calls.map(rowsOf), [[[agentA, "cpu", "t3", 3]]])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 1, superseded: 2, agents: 1 })
    })
  )

  it.effect("600 agents give 1 capacity and 1 scheduled flush and 3 publishes", () =>
    Effect.gen(function* () {
      const started = yield* start()
      for (let agent = 0; agent < 600; agent++)
        yield* started.batcher.add(agentIdOf(agent), [fact("cpu", "")])
      yield* started.publishes.ended
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(started.writes.times, [0, 5000])
      assert.deepStrictEqual(
        payloadsOf(started).map((agents) => agents.length),
        [363, 137, 100]
      )
      assert.deepStrictEqual(new Set(payloadsOf(started).flat()), new Set(agentIds(600)))
      yield* assertMetrics(started, { batches: { capacity: 1, scheduled: 1 }, flushed: 600, agents: 600 })
    })
  )

  it.effect("20 concurrent producers on the same 3 keys leave the newest of each", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, producer) => producer),
        (producer) =>
          Effect.forEach(
            Array.from({ length: 10 }, (_, round) => round),
            (round) =>
              Effect.andThen(
                Effect.yieldNow,
                // 7 and 200 have no common factor: every time from 0 to 199 comes once, in no order.
                started.batcher.add(agentA, facts(3, `${producer}`, ((producer * 10 + round) * 7) % 200))
              )
          ),
        { concurrency: "unbounded" }
      )
      yield* TestClock.adjust("5 seconds")
      // 199 = (57 × 7) mod 200, from producer 5.
      const newest = ["key 0", "key 1", "key 2"].map((key) => [agentA, key, "5", 199] as const)
      assert.deepStrictEqual(started.writes.calls.map(rowsOf), [newest])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 3, superseded: 597, agents: 1 })
    })
  )

  it.effect("capacity flush at 100", () =>
    Effect.gen(function* () {
      const started = yield* start({ maxBatchSize: 100 })
      const { batcher, writes } = started
      for (let agent = 0; agent < 99; agent++) yield* batcher.add(agentIdOf(agent), [fact("cpu", "")])
      yield* started.until(({ pending }) => pending === 99)
      // An update of a key that waits already makes the batch no larger.
      yield* batcher.add(agentIdOf(0), [fact("cpu", "again")])
      yield* started.until(({ superseded }) => superseded === 1)
      assert.deepStrictEqual(writes.calls, [])
      yield* batcher.add(agentIdOf(99), [fact("cpu", "")])
      assert.strictEqual((yield* writes.began).keys.length, 100)
      yield* batcher.flush
      yield* assertMetrics(started, { batches: { capacity: 1 }, flushed: 100, superseded: 1, agents: 100 })
    })
  )
})

const agentIds = (count: number) => Array.from({ length: count }, (_, agent) => agentIdOf(agent))

/** The agents named by each payload published so far. */
const payloadsOf = ({ publishes }: Started) =>
  publishes.calls.flatMap(({ payloads }) => payloads.map((payload) => agentsOf(payload)))
