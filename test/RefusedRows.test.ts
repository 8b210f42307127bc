/** One row never keeps another from being written, and waits apart until it can be: law 6. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { maxSearchStatements } from "../src/internal/batcher/search.ts"
import * as Store from "../src/Store.ts"
import {
  agentIdOf,
  assertMetrics,
  type Fault,
  fact,
  facts,
  identify,
  poison,
  refusesPoison,
  refusing,
  rowsOf,
  type Started,
  start,
  warnings
} from "./support/Fakes.ts"

const [agent, other] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000
const down: Fault = { _tag: "Fail", reason: "Unavailable", millis: 0 }

/** 400 agents with one fact each, of which those of these numbers are poisoned. */
const addFleet = (
  { batcher }: Pick<Started, "batcher">,
  bad: ReadonlyArray<number>,
  value = "",
  count = 400
) => {
  for (let number = 0; number < count; number++) {
    batcher.addUnsafe(agentIdOf(number), [fact("cpu", bad.includes(number) ? poison(value) : value)])
  }
}

describe("A refused row", () => {
  for (const tells of ["nothing", "names"] as const) {
    const most = tells === "names" ? 1 : 1 + maxSearchStatements
    it.effect(
      `of 400 waits apart, 399 are written in the same flush, by ${most} statements at most: the store tells ${tells}`,
      () =>
        Effect.gen(function* () {
          const started = yield* start()
          const { assertAccount, batcher, held, logs, metrics, published, rule, valueOf, writes } = started
          rule({ refuses: refusesPoison("SQLSTATE XX001"), tells })
          addFleet(started, [321], "secret")
          assert.deepInclude(yield* batcher.flush, { written: 399, refused: 1, unwritten: 0 })
          yield* assertAccount({ written: 399, refused: 1, discarded: 0, pending: 0 })
          assert.strictEqual(held.size, 399)
          assert.isAtMost(writes.calls.length, most)
          assert.strictEqual(new Set(published.flatMap(({ agents }) => agents)).size, 399)
          assert.strictEqual((yield* valueOf(metrics.refused)).value, 1)
          const [said, ...more] = warnings(logs.lines)
          assert.deepStrictEqual(more, [])
          assert.strictEqual(said?.message, "the store refused 1 rows; they are tried again apart")
          assert.deepStrictEqual(said?.annotations["rows"], [
            {
              agent: agentIdOf(321),
              key: "cpu",
              why: tells === "names" ? "SQLSTATE XX001" : "the store rejected the batch: SQLSTATE XX001"
            }
          ])
          assert.notInclude(JSON.stringify(logs.lines), "secret")
          yield* assertMetrics(started, { batches: { manual: 1 }, flushed: 399, agents: 399 })
        })
    )

    it.effect(
      `is written within ten seconds of what it waited for, if that comes within a minute: ${tells}`,
      () =>
        Effect.gen(function* () {
          for (const healedAfter of [2_000, 20_000, 60_000]) {
            const started = yield* start({ interval })
            const { assertAccount, batcher, held, published, rule } = started
            // A foreign key whose parent row has not been committed yet.
            rule({ refuses: ({ agentId }) => (agentId === agent ? "SQLSTATE 23503" : undefined), tells })
            batcher.addUnsafe(agent, facts(1, "orphan"))
            batcher.addUnsafe(other, facts(5))
            yield* TestClock.adjust(interval)
            yield* assertAccount({ refused: 1, written: 5 })
            yield* TestClock.adjust(healedAfter)
            yield* assertAccount({ refused: 1 })
            rule({})
            yield* TestClock.adjust("10 seconds")
            yield* assertAccount({ refused: 0, written: 6, discarded: 0 })
            assert.strictEqual(held.get(identify({ agentId: agent, key: "key 0" }))?.value, "orphan")
            assert.isTrue(published.some(({ agents }) => agents.includes(agent)))
          }
        })
    )
  }

  it.effect("is tried again with its newest value, and nothing older than that is written", () =>
    Effect.gen(function* () {
      const { applied, assertAccount, batcher, rule } = yield* start({ interval })
      rule({ refuses: ({ key }) => (key === "cpu" ? "no" : undefined), tells: "names" })
      batcher.addUnsafe(agent, [fact("cpu", "0", 0), fact("disk", "", 0)])
      yield* batcher.flush
      for (let second = 1; second <= 30; second++) {
        batcher.addUnsafe(agent, [fact("cpu", `${second}`, second)])
        yield* TestClock.adjust("1 second")
        yield* assertAccount({ refused: 1, superseded: second })
      }
      rule({})
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        applied.filter(({ key }) => key === "cpu").map(({ value }) => value),
        ["30"]
      )
    })
  )

  it.effect("is tried at most once a second at first, and once a minute in the end", () =>
    Effect.gen(function* () {
      const { batcher, rule, writes } = yield* start({ interval })
      rule({ refuses: refusesPoison() })
      batcher.addUnsafe(agent, [fact("bad", poison("")), fact("good", "")])
      yield* batcher.flush
      const before = writes.calls.length
      yield* TestClock.adjust("59 minutes")
      const times = writes.times.slice(before)
      const pauses = times.slice(1).map((time, i) => time - (times[i] ?? 0))
      assert.isAtLeast(Math.min(...pauses), 1_000)
      assert.isAtMost(Math.max(...pauses), 61_000)
      // A minute apart once it has been refused for eight.
      assert.isAtMost(times.filter((time) => time > 30 * 60_000).length, 30)
    })
  )

  it.effect("is given up after an hour, and counted", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule } = yield* start({ interval })
      rule({ refuses: refusesPoison() })
      batcher.addUnsafe(agent, [fact("bad", poison("")), fact("good", "")])
      yield* TestClock.adjust("59 minutes")
      yield* assertAccount({ refused: 1, discarded: 0 })
      yield* TestClock.adjust("5 minutes")
      yield* assertAccount({ refused: 0, discarded: 1, written: 1 })
    })
  )

  it.effect("is not given up because the store was away for an hour", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, rule } = yield* start({ interval })
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agent, [fact("bad", poison("")), fact("good", "")])
      yield* batcher.flush
      inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      yield* TestClock.adjust("2 hours")
      yield* assertAccount({ refused: 1, written: 1 })
      rule({})
      inject({ write: [] })
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ refused: 0, written: 2 })
    })
  )

  it.effect("gives way to what is new when room is short, the longest refused first", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, rule } = yield* start({
        maxBatchSize: 5,
        maxPending: 10,
        interval
      })
      rule({ refuses: refusesPoison(), tells: "names" })
      for (let number = 0; number < 5; number++) {
        batcher.addUnsafe(agentIdOf(number), [fact("bad", poison("")), fact("good", "")])
        yield* batcher.flush
        yield* TestClock.adjust(1)
      }
      yield* assertAccount({ refused: 5, written: 5 })
      assert.strictEqual(batcher.addUnsafe(other, facts(8)), 8)
      yield* assertAccount({ refused: 2, discarded: 3, dropped: 0 })
      rule({})
      yield* TestClock.adjust("20 seconds")
      yield* assertAccount({ refused: 0, written: 15, discarded: 3 })
      const saved = [0, 1, 2, 3, 4].filter((number) =>
        held.has(identify({ agentId: agentIdOf(number), key: "bad" }))
      )
      assert.deepStrictEqual(saved, [3, 4])
    })
  )

  it.effect("does not give way to what finds no room all the same", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule } = yield* start({ maxPendingBytes: 1_000 })
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agent, [fact("bad", poison("")), fact("good", "")])
      yield* batcher.flush
      yield* assertAccount({ refused: 1, written: 1 })
      assert.strictEqual(batcher.addUnsafe(other, [fact("large", "x".repeat(1_000))]), 0)
      yield* assertAccount({ refused: 1, discarded: 0, dropped: 1 })
    })
  )

  it.effect("does not give way while it is being tried again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule, writes } = yield* start({
        maxBatchSize: 5,
        maxPending: 5,
        interval
      })
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agentIdOf(1), [fact("bad", poison("1"), 1), fact("good", "", 1)])
      yield* batcher.flush
      const gate = writes.hold()
      yield* TestClock.adjust("1 second")
      batcher.addUnsafe(agentIdOf(1), [fact("bad", poison("2"), 2)])
      yield* TestClock.adjust(0)
      yield* assertAccount({ inFlight: 1, refused: 1 })
      assert.strictEqual(batcher.addUnsafe(other, facts(5)), 4)
      yield* gate.open
      rule({})
      yield* TestClock.adjust("20 seconds")
      yield* assertAccount({ refused: 0, pending: 0, inFlight: 0, written: 7, dropped: 1 })
    })
  )

  it.effect("that hangs when it is tried again holds the others up for an interval at most", () =>
    Effect.gen(function* () {
      const { batcher, rule, valueHeld, writes } = yield* start()
      rule({ refuses: ({ key }) => (key === "cpu" ? "not yet" : undefined), tells: "names" })
      yield* batcher.add(agent, [fact("cpu", "", 1), fact("disk", "before", 1)])
      yield* batcher.flush
      writes.answer(Effect.never)
      yield* TestClock.adjust("1 second")
      yield* batcher.add(agent, [fact("disk", "after", 2)])
      // An interval after the try began; an outage it is not.
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(valueHeld(agent, "disk"), "after")
      rule({})
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(valueHeld(agent, "cpu"), "")
    })
  )

  it.effect("does not slow the others down when it is sent again and again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule, valueHeld, writes } = yield* start({ maxBatchSize: 500 })
      rule({ refuses: refusesPoison() })
      const garbage = facts(5).map((bad) => ({ ...bad, value: poison("again") }))
      const report = Effect.suspend(() => {
        batcher.addUnsafe(agent, facts(400))
        batcher.addUnsafe(other, garbage)
        return batcher.flush
      })
      for (let round = 0; round < 3; round++) yield* report
      yield* assertAccount({ refused: 5 })
      const before = writes.calls.length
      yield* report
      // What is known to be refused goes apart: one statement for what is clean.
      assert.deepStrictEqual(
        writes.log.slice(before).map(({ outcome, request }) => [outcome, request.keys.length]),
        [["succeeded", 400]]
      )
      yield* assertAccount({ refused: 5, discarded: 0, pending: 0 })

      batcher.addUnsafe(other, facts(5, "good"))
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(valueHeld(other, "key 3"), "good")
      yield* assertAccount({ refused: 0 })
      batcher.addUnsafe(other, facts(5, "better"))
      yield* batcher.flush
      assert.strictEqual(writes.calls.at(-1)?.keys.length, 5)
    })
  )

  it.effect("whose statement gets no answer is found, and the others are written", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, rule } = yield* start({ interval, writeTimeout: 1_000 })
      rule({ locks: ({ agentId }) => agentId === agent })
      for (let number = 1; number <= 50; number++) batcher.addUnsafe(agentIdOf(number), facts(1))
      yield* TestClock.adjust("2 minutes")
      // It is tried again now and then, which takes a second each time.
      const { inFlight, refused } = yield* batcher.accounting
      assert.strictEqual(inFlight + refused, 1)
      yield* assertAccount({ written: 49, pending: 0 })
      rule({})
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ refused: 0, written: 50 })
      assert.strictEqual(held.size, 50)
    })
  )

  it.effect(
    "after which the connection does not survive is found, once a probe has shown the server there",
    () =>
      Effect.gen(function* () {
        const { assertAccount, batcher, writes } = yield* start({ interval })
        // PgStore says Canceled where a statement did not survive while the server answers a probe.
        writes.answerAll((batch) =>
          batch.values.includes("kills")
            ? Effect.fail(Store.canceled(new Error("connection lost")))
            : Effect.void
        )
        for (let number = 0; number < 400; number++) {
          batcher.addUnsafe(agentIdOf(number), [fact("cpu", number === 77 ? "kills" : "")])
        }
        yield* TestClock.adjust("20 seconds")
        yield* assertAccount({ refused: 1, written: 399 })
      })
  )

  it.effect("is searched by halving: what cannot be at fault is not tried again", () =>
    Effect.gen(function* () {
      const { batcher, rule, writes } = yield* start({ maxBatchSize: 512 })
      rule({ refuses: refusesPoison() })
      for (let number = 0; number < 512; number++) {
        batcher.addUnsafe(agentIdOf(number), [fact("cpu", number === 511 ? poison("") : "")])
      }
      yield* batcher.flush
      // The whole, one row alone, and per halving the clean half; where that was the left one, the right one is halved
      // without having been tried. The last two rows are tried alone.
      assert.isAtMost(writes.calls.length, 2 + 9 + 1)
      const failures = writes.log
        .filter(({ outcome }) => outcome === "failed")
        .map(({ request }) => request.keys.length)
      assert.deepStrictEqual(failures, [512, 1])
    })
  )
})

describe("Many refused rows", () => {
  it.effect("cost each flush a bounded number of statements, and no good row is left out in the end", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval })
      const { assertAccount, rule, writes } = started
      rule({ refuses: refusesPoison() })
      const bad = Array.from({ length: 40 }, (_, i) => 10 * i)
      addFleet(started, bad)
      for (let flush = 0; flush < 30; flush++) {
        const before = writes.calls.length
        yield* started.batcher.flush
        assert.isAtMost(writes.calls.length - before, 21)
      }
      yield* assertAccount({ written: 360, refused: 40, pending: 0 })
    })
  )

  it.effect("of which a flush is half full are told from an outage before long", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval })
      const { assertAccount, batcher, held, rule } = started
      rule({ refuses: refusesPoison() })
      const bad = Array.from({ length: 100 }, (_, i) => 2 * i)
      addFleet(started, bad, "", 200)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(held.size, 100)
      yield* assertAccount({ written: 100, refused: 100, pending: 0, discarded: 0 })
      assert.strictEqual((yield* batcher.status)._tag, "Available")
    })
  )

  it.effect("side by side, with one good row far away, are told from an outage before long", () =>
    Effect.gen(function* () {
      for (const good of [0, 7, 29]) {
        const started = yield* start({ interval })
        const { assertAccount, rule } = started
        rule({ refuses: refusesPoison() })
        const bad = Array.from({ length: 30 }, (_, number) => number).filter((number) => number !== good)
        // All of them report again and again.
        for (let second = 0; second < 300; second += 5) {
          addFleet(started, bad, `${second}`, 30)
          yield* TestClock.adjust(interval)
        }
        yield* assertAccount({ refused: 29, pending: 0, discarded: 0 })
        assert.strictEqual(started.valueHeld(agentIdOf(good), "cpu"), "295")
      }
    })
  )

  it.effect("are all written once an operator has put right what they lacked", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval })
      const { assertAccount, rule } = started
      rule({ refuses: refusesPoison(), tells: "names" })
      addFleet(
        started,
        Array.from({ length: 200 }, (_, i) => 2 * i)
      )
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ refused: 200, written: 200 })
      rule({})
      yield* TestClock.adjust("30 seconds")
      yield* assertAccount({ refused: 0, written: 400 })
    })
  )

  it.effect("are retried by at most 20 statements an interval", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval })
      const { rule, writes } = started
      rule({ refuses: refusesPoison(), tells: "names" })
      addFleet(
        started,
        Array.from({ length: 300 }, (_, i) => i + 1)
      )
      yield* started.batcher.flush
      for (let second = 0; second < 60; second++) {
        const before = writes.calls.length
        yield* TestClock.adjust(interval)
        assert.isAtMost(writes.calls.length - before, 20)
      }
    })
  )

  it.effect(
    "are named in one warning per 10 seconds, ten of them, by agent, key and why, never by value",
    () =>
      Effect.gen(function* () {
        const started = yield* start({ interval: "1 hour" })
        const { batcher, logs, rule } = started
        rule({ refuses: refusesPoison(), tells: "names" })
        for (let second = 0; second < 15; second++) {
          for (let number = 0; number < 20; number++) {
            batcher.addUnsafe(agentIdOf(number), [
              fact(`key ${second}\n"`, number === 0 ? "" : poison("secret"))
            ])
          }
          yield* batcher.flush
          yield* TestClock.adjust("1 second")
        }
        const said = warnings(logs.lines)
        assert.deepStrictEqual(
          said.map(({ annotations, at, message }) => [at, message.slice(0, 25), annotations["count"]]),
          [
            [0, "the store refused 19 rows", 19],
            [10_000, "the store refused 190 row", 190]
          ]
        )
        const rows = said[0]?.annotations["rows"]
        assert.lengthOf(rows as ReadonlyArray<unknown>, 10)
        assert.deepStrictEqual((rows as ReadonlyArray<unknown>)[0], {
          agent: agentIdOf(1),
          key: 'key 0\\n\\"',
          why: "constraint violated"
        })
        assert.notInclude(JSON.stringify(logs.lines), "secret")
      })
  )
})

describe("Rows are not to blame", () => {
  it.effect("when three of different agents fail alone and none succeeds: at most 4 statements", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule, writes } = yield* start({ interval: "1 hour" })
      rule({ refuses: () => "a column was narrowed" })
      for (let number = 0; number < 100; number++) batcher.addUnsafe(agentIdOf(number), facts(4))
      yield* batcher.flush
      yield* assertAccount({ refused: 0, discarded: 0, pending: 400 })
      assert.strictEqual(writes.calls.length, 4)
      const alone = writes.calls.slice(1).flatMap(rowsOf)
      assert.strictEqual(new Set(alone.map(([agentId]) => agentId)).size, 3)
    })
  )

  it.effect("and others are tried alone the next time", () =>
    Effect.gen(function* () {
      const { batcher, rule, writes } = yield* start({ interval })
      rule({ refuses: () => "a column was narrowed" })
      for (let number = 0; number < 100; number++) batcher.addUnsafe(agentIdOf(number), facts(1))
      yield* TestClock.adjust("1 minute")
      const alone = writes.calls.filter(({ keys }) => keys.length === 1).flatMap(rowsOf)
      assert.isAtLeast(new Set(alone.map(([agentId]) => agentId)).size, 20)
    })
  )

  it.effect("when the store goes away in the middle of a search", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, rule } = yield* start({ interval })
      rule({ refuses: refusesPoison() })
      for (let number = 0; number < 100; number++) {
        batcher.addUnsafe(agentIdOf(number), [fact("cpu", number === 50 ? poison("") : "")])
      }
      inject({
        write: [
          { _tag: "Delay", millis: 0 },
          { _tag: "Delay", millis: 0 },
          { _tag: "Delay", millis: 0 },
          down
        ]
      })
      yield* TestClock.adjust(interval)
      yield* assertAccount({ refused: 0, discarded: 0 })
      inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      yield* assertAccount({ refused: 1, written: 99, discarded: 0 })
    })
  )

  it.effect("when the only row there is fails", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule } = yield* start({ interval })
      rule({ refuses: () => "perhaps the row, perhaps the table" })
      batcher.addUnsafe(agent, facts(1))
      yield* TestClock.adjust(interval)
      yield* assertAccount({ refused: 0, pending: 1 })
      batcher.addUnsafe(other, facts(1))
      rule({ refuses: ({ agentId }) => (agentId === agent ? "the row" : undefined) })
      yield* TestClock.adjust(2 * interval)
      yield* assertAccount({ refused: 1, written: 1 })
    })
  )
})

describe("A store that names refused rows itself", () => {
  it.effect("is believed, and asked no further", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, published, writes } = yield* start()
      writes.answer(Effect.succeed(refusing(4, [0, 2])))
      batcher.addUnsafe(agent, facts(3))
      batcher.addUnsafe(other, facts(1))
      assert.deepInclude(yield* batcher.flush, { written: 2, refused: 2 })
      yield* assertAccount({ written: 2, refused: 2 })
      assert.strictEqual(writes.calls.length, 1)
      assert.deepStrictEqual(
        published.map(({ agents }) => agents),
        [[agent, other]]
      )
    })
  )

  it.effect("also of rows in statements that a search sends", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, writes } = yield* start()
      writes.answerAll((batch) => {
        if (batch.values.includes("bad")) return Effect.fail(Store.rejected(new Error("bad")))
        const named = batch.values.flatMap((value, position) => (value === "named" ? [position] : []))
        return Effect.succeed(refusing(batch.values.length, named))
      })
      for (let number = 0; number < 30; number++) {
        batcher.addUnsafe(agentIdOf(number), [
          fact("cpu", number === 9 ? "bad" : number === 20 ? "named" : "")
        ])
      }
      yield* batcher.flush
      yield* assertAccount({ written: 28, refused: 2, pending: 0 })
    })
  )
})
