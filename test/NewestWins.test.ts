/** A fact is never overwritten by an older one: law 3. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as Store from "../src/Store.ts"
import { agentIdOf, fact, facts, makeWorld, rowsOf, start } from "./support/Fakes.ts"

const agent = agentIdOf(1)
const interval = 5_000
const unavailable = Effect.fail(Store.unavailable(new Error("server is shutting down")))

describe("The newest wins", () => {
  it.effect("and of two facts collected at the same time the later add", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      yield* batcher.add(agent, [fact("cpu", "first", 1), fact("cpu", "second", 1)])
      yield* batcher.add(agent, [fact("cpu", "third", 1)])
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.map(rowsOf), [[[agent, "cpu", "third", 1]]])
    })
  )

  it.effect("also where only some of a report's keys are newer", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      yield* batcher.add(agent, [fact("a", "old", 5), fact("b", "old", 5), fact("c", "old", 5)])
      yield* batcher.add(agent, [fact("a", "new", 6), fact("b", "late", 4), fact("c", "new", 5)])
      yield* batcher.add(agent, [fact("c", "newest", 7), fact("d", "new", 0)])
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.map(rowsOf), [
        [
          [agent, "a", "new", 6],
          [agent, "b", "old", 5],
          [agent, "c", "newest", 7],
          [agent, "d", "new", 0]
        ]
      ])
    })
  )

  it.effect("among more keys than are looked through one by one", () =>
    Effect.gen(function* () {
      const { batcher, held } = yield* start()
      const shuffled = (step: number) =>
        Array.from({ length: 97 }, (_, i) => fact(`key ${(i * step) % 97}`, `${step}`, step))
      for (const step of [1, 5, 3, 7, 2]) yield* batcher.add(agent, shuffled(step))
      yield* batcher.flush
      assert.strictEqual(held.size, 97)
      for (const { value } of held.values()) assert.strictEqual(value, "7")
    })
  )

  it.effect("between a batch whose write failed and what came since", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start()
      const gate = writes.hold(unavailable)
      yield* batcher.add(agent, [fact("older", "new", 2), fact("same", "old", 2), fact("newer", "old", 2)])
      yield* batcher.add(agent, [fact("alone", "old", 2)])
      yield* TestClock.adjust(interval)
      yield* batcher.add(agent, [fact("older", "old", 1), fact("same", "new", 2), fact("newer", "new", 3)])
      yield* until(({ pending }) => pending === 3)
      yield* gate.open
      yield* until(({ inFlight }) => inFlight === 0)
      assert.deepInclude(yield* batcher.accounting, { pending: 4, superseded: 3 })
      yield* TestClock.adjust(interval)
      assert.deepStrictEqual(writes.succeeded.map(rowsOf), [
        [
          [agent, "alone", "old", 2],
          [agent, "newer", "new", 3],
          [agent, "older", "new", 2],
          [agent, "same", "new", 2]
        ]
      ])
    })
  )

  it.effect("between a refused row and what comes while it waits apart", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule, valueHeld } = yield* start()
      rule({ refuses: ({ key }) => (key === "cpu" ? "not yet" : undefined), tells: "names" })
      yield* batcher.add(agent, [fact("cpu", "first", 1), fact("disk", "", 1)])
      yield* batcher.flush
      yield* batcher.add(agent, [fact("cpu", "newest", 3)])
      yield* batcher.add(agent, [fact("cpu", "late", 2)])
      yield* TestClock.adjust(0)
      yield* assertAccount({ refused: 1, superseded: 2, written: 1 })
      rule({})
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(valueHeld(agent, "cpu"), "newest")
      yield* assertAccount({ refused: 0, written: 2 })
    })
  )

  it.effect("between a refused row that is being tried again and what comes meanwhile", () =>
    Effect.gen(function* () {
      for (const [at, value] of [
        [1, "newest"],
        [2, "later"],
        [3, "later"]
      ] as const) {
        const { assertAccount, batcher, rule, valueHeld, writes } = yield* start()
        rule({ refuses: ({ key }) => (key === "cpu" ? "not yet" : undefined), tells: "names" })
        yield* batcher.add(agent, [fact("cpu", "newest", 2), fact("disk", "", 1)])
        yield* batcher.flush
        const gate = writes.hold(unavailable)
        yield* TestClock.adjust("1 second")
        yield* batcher.add(agent, [fact("cpu", "later", at)])
        yield* TestClock.adjust(0)
        yield* gate.open
        rule({})
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(valueHeld(agent, "cpu"), value)
        yield* assertAccount({ refused: 0, superseded: 1, written: 2 })
      }
    })
  )

  it.effect("in the store: what it holds newer is counted as superseded, and not announced", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, published, valueHeld } = yield* start()
      yield* batcher.add(agent, [fact("cpu", "new", 2)])
      yield* batcher.flush
      yield* batcher.add(agent, [fact("cpu", "old", 1)])
      assert.deepInclude(yield* batcher.flush, { written: 0, superseded: 1 })
      yield* assertAccount({ written: 1, superseded: 1 })
      assert.strictEqual(valueHeld(agent, "cpu"), "new")
      assert.strictEqual(published.length, 1)
    })
  )

  it.effect("whatever order the writes of two replicas end in", () =>
    Effect.gen(function* () {
      const shared = yield* makeWorld({ writeConcurrency: 2 })
      const [fast, slow] = [yield* start({ interval }, shared), yield* start({ interval }, shared)]
      shared.inject({
        write: [
          { _tag: "Delay", millis: 10 },
          { _tag: "Delay", millis: 900 }
        ]
      })
      for (let round = 0; round < 20; round++) {
        fast.batcher.addUnsafe(agent, facts(10, `new ${round}`, 2 * round + 1))
        slow.batcher.addUnsafe(agent, facts(10, `old ${round}`, 2 * round))
        yield* TestClock.adjust(interval)
      }
      yield* TestClock.adjust(interval)
      yield* fast.assertAccount({ written: 200 })
      yield* slow.assertAccount({ superseded: 200, written: 0 })
      assert.isTrue(shared.applied.at(-1)?.value.startsWith("old"))
      for (const { value } of shared.held.values()) assert.strictEqual(value, "new 19")
    })
  )

  it.effect("over an old value that lands late", () =>
    Effect.gen(function* () {
      const { applied, batcher, inject, valueHeld } = yield* start({ interval, writeTimeout: 2_000 })
      inject({ write: [{ _tag: "Late", millis: 3 * interval }] })
      batcher.addUnsafe(agent, [fact("cpu", "old", 1)])
      yield* TestClock.adjust(interval + 1)
      inject({ write: [] })
      batcher.addUnsafe(agent, [fact("cpu", "new", 2)])
      yield* TestClock.adjust(5 * interval)
      assert.strictEqual(applied.at(-1)?.value, "old")
      assert.strictEqual(valueHeld(agent, "cpu"), "new")
    })
  )
})
