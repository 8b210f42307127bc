/** No clock freezes a key: what is dated too far ahead counts as collected when it was added. Law 8. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as Store from "../src/Store.ts"
import { agentIdOf, fact, now, rowsOf, start, warnings } from "./support/Fakes.ts"

const agent = agentIdOf(1)
const interval = 5_000
const year = 365 * 86_400_000

describe("A fact dated a year ahead", () => {
  it.effect("gives way to the reports of now, is counted, and a warning names the agent and the option", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, logs, metrics, valueOf } = yield* start({ interval })
      batcher.addUnsafe(agent, [fact("cpu", "from the future", year)])
      yield* TestClock.adjust(interval)
      for (let report = 1; report <= 5; report++) {
        batcher.addUnsafe(agent, [fact("cpu", `${report}`, yield* now)])
        yield* TestClock.adjust(interval)
        assert.strictEqual(Array.from(held.values())[0]?.value, `${report}`)
      }
      yield* assertAccount({ written: 6, superseded: 0 })
      assert.strictEqual((yield* valueOf(metrics.dated)).count, 1)
      const [warning, ...more] = warnings(logs.lines)
      assert.deepStrictEqual(more, [])
      assert.include(warning?.message, "maxAhead")
      assert.deepInclude(warning?.annotations, { agent, maxAheadMillis: 60_000, count: 1 })
    })
  )

  it.effect("is given its time once: a retry carries the same", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start({ interval })
      writes.answer(Effect.fail(Store.unavailable("down")), Effect.fail(Store.unavailable("down")))
      yield* TestClock.adjust(1_234)
      batcher.addUnsafe(agent, [fact("cpu", "7 %", year, "an error")])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(writes.calls.length, 3)
      for (const batch of writes.calls) {
        assert.deepStrictEqual(rowsOf(batch), [[agent, "cpu", "7 %", 1_234]])
        assert.deepStrictEqual(batch.errors, ["an error"])
      }
    })
  )

  it.effect("does not change the others of its report", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start({ interval })
      assert.strictEqual(
        batcher.addUnsafe(agent, [fact("a", "", -5), fact("b", "", year), fact("c", "", 60_000)]),
        3
      )
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.map(rowsOf), [
        [
          [agent, "a", "", -5],
          [agent, "b", "", 0],
          [agent, "c", "", 60_000]
        ]
      ])
    })
  )
})

describe("maxAhead", () => {
  it.effect("is the last moment that counts as it is", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start({ interval, maxAhead: "10 seconds" })
      batcher.addUnsafe(agent, [fact("in time", "", 10_000), fact("too late", "", 10_001)])
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls[0]?.collectedAt, [10_000, 0])
    })
  )

  it.effect("of Infinity lets any date count", () =>
    Effect.gen(function* () {
      const { batcher, metrics, valueOf, writes } = yield* start({ maxAhead: Number.POSITIVE_INFINITY })
      batcher.addUnsafe(agent, [fact("cpu", "", year)])
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls[0]?.collectedAt, [year])
      assert.strictEqual((yield* valueOf(metrics.dated)).count, 0)
    })
  )

  it.effect("keeps no report from the store though the batcher's own clock is set back an hour", () =>
    Effect.gen(function* () {
      const testClock = yield* Clock.Clock
      let offset = 3_600_000
      const wallClock: Clock.Clock = {
        ...testClock,
        currentTimeMillisUnsafe: () => testClock.currentTimeMillisUnsafe() + offset
      }
      const { batcher, valueHeld, writes } = yield* Effect.provideService(
        start({ interval }),
        Clock.Clock,
        wallClock
      )
      batcher.addUnsafe(agent, [fact("cpu", "before", 3_600_000)])
      offset = 0
      yield* TestClock.adjust(1)
      // It waits, dated an hour ahead of what the clock says now; a report of now has an older date.
      batcher.addUnsafe(agent, [fact("cpu", "after", 1)])
      yield* batcher.flush
      assert.strictEqual(valueHeld(agent, "cpu"), "before")
      // What comes from then on is for the store to judge: the guard in SQL lets the row that is dated ahead give way.
      batcher.addUnsafe(agent, [fact("cpu", "later", 2)])
      yield* batcher.flush
      assert.deepStrictEqual(
        writes.calls.map(({ values }) => values),
        [["before"], ["later"]]
      )
    })
  )
})
