/** While the store is away everything is kept, and written once it is back: law 5. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Store from "../src/Store.ts"
import {
  agentIdOf,
  assertMetrics,
  type Fault,
  fact,
  facts,
  poison,
  refusesPoison,
  start,
  warnings
} from "./support/Fakes.ts"

const [agent, other] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000
const down: Fault = { _tag: "Fail", reason: "Unavailable", millis: 0 }

describe("An outage", () => {
  it.effect(
    "loses nothing and is retried with a growing pause below the interval, one attempt at a time",
    () =>
      Effect.gen(function* () {
        const { assertAccount, batcher, held, inject, published, writes } = yield* start({
          maxBatchSize: 100
        })
        inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 20 }] })
        for (let report = 0; report < 120; report++) {
          batcher.addUnsafe(agentIdOf(report), facts(2, `${report}`))
          yield* TestClock.adjust("1 second")
        }
        yield* assertAccount({ dropped: 0, discarded: 0, written: 0, pending: 240 })
        const pauses = writes.log.slice(1).map((call, i) => call.startedAt - (writes.log[i]?.endedAt ?? 0))
        assert.isBelow(pauses[0] ?? 0, 200)
        assert.isTrue(pauses.every((pause) => pause <= interval))
        assert.isBelow(writes.calls.length, 40)
        assert.isAbove(writes.calls.length, 20)

        inject({ write: [] })
        yield* TestClock.adjust(2 * interval)
        yield* assertAccount({ dropped: 0, discarded: 0, written: 240, pending: 0 })
        assert.strictEqual(held.size, 240)
        assert.strictEqual(new Set(published.flatMap(({ agents }) => agents)).size, 120)
      })
  )

  it.effect("is one warning when it begins, one a minute and one when it ends", () =>
    Effect.gen(function* () {
      const { batcher, inject, logs, writes } = yield* start()
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(3, "secret"))
      yield* TestClock.adjust("150 seconds")
      inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      assert.isAbove(writes.calls.length, 20)
      const said = warnings(logs.lines)
      const expected = [
        /^store unavailable/,
        /^store still unavailable/,
        /^store still/,
        /^store available again/
      ]
      assert.strictEqual(said.length, expected.length)
      expected.forEach((pattern, i) => {
        assert.match(said[i]?.message ?? "", pattern)
      })
      const attempts = writes.times.filter((time) => time < (said[1]?.at ?? 0) + 1).length
      assert.deepInclude(said[1]?.annotations, { pending: 3, dropped: 0, attempts })
      assert.isAtLeast((said[2]?.at ?? 0) - (said[1]?.at ?? 0), 60_000)
      assert.isAtLeast(said[3]?.annotations["seconds"] as number, 145)
      for (const line of logs.lines) assert.notInclude(JSON.stringify(line), "secret")
    })
  )

  it.effect("that goes on keeps the time of its begin, and ends with the first write", () =>
    Effect.gen(function* () {
      const { batcher, inject } = yield* start()
      assert.deepStrictEqual(yield* batcher.status, { _tag: "Available" })
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(3))
      for (const _ of Array.from({ length: 12 })) {
        yield* TestClock.adjust(interval)
        const status = yield* batcher.status
        assert.strictEqual(status._tag, "Unavailable")
        if (status._tag === "Unavailable") {
          assert.strictEqual(status.since.epochMilliseconds, interval)
          assert.strictEqual(status.error, "the store is unavailable: down")
        }
      }
      inject({ write: [] })
      yield* TestClock.adjust(interval)
      assert.deepStrictEqual(yield* batcher.status, { _tag: "Available" })
    })
  )

  it.effect("is bounded by maxPending: what waits still takes newer values, new keys are dropped", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, logs, valueHeld } = yield* start({
        maxBatchSize: 10,
        maxPending: 20,
        interval
      })
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(20, "old", 1))
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ pending: 20, dropped: 0 })
      assert.strictEqual(batcher.addUnsafe(agent, [fact("key 7", "new", 2), fact("another", "", 2)]), 1)
      assert.strictEqual(batcher.addUnsafe(other, facts(3)), 0)
      yield* TestClock.adjust(interval)
      yield* assertAccount({ pending: 20, dropped: 4, superseded: 1 })
      assert.isTrue(warnings(logs.lines).some(({ annotations }) => annotations["maxPending"] === 20))
      inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      yield* assertAccount({ written: 20, pending: 0 })
      assert.strictEqual(valueHeld(agent, "key 7"), "new")
    })
  )

  it.effect("ends when nothing is left to be written: nothing else could end it", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, logs } = yield* start({ interval })
      inject({ write: [down] })
      yield* batcher.add(agent, facts(5))
      yield* TestClock.adjust(interval)
      assert.strictEqual((yield* batcher.status)._tag, "Unavailable")
      yield* batcher.forget(agent)
      yield* TestClock.adjust(interval)
      assert.strictEqual((yield* batcher.status)._tag, "Available")
      assert.include(warnings(logs.lines).at(-1)?.message, "nothing waits for the store any more")
      inject({ write: [] })
      yield* batcher.add(agent, facts(5))
      yield* TestClock.adjust(interval)
      yield* assertAccount({ written: 5 })
    })
  )

  it.effect("that begins again during the catching up is recovered from again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject } = yield* start({ maxBatchSize: 10 })
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(50))
      yield* TestClock.adjust("1 minute")
      // Up for one statement, then down as soon as the next batch goes out.
      inject({ write: [{ _tag: "Delay", millis: 1 }, down, down, down] })
      yield* TestClock.adjust("1 minute")
      inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      yield* assertAccount({ written: 50, pending: 0 })
    })
  )

  it.effect("because the store refuses every row for a minute loses nothing and sets nothing apart", () =>
    Effect.gen(function* () {
      for (const tells of ["nothing", "names"] as const) {
        const { assertAccount, batcher, held, inject, rule } = yield* start({ maxBatchSize: 100 })
        rule({ refuses: () => "a column was narrowed", tells })
        for (let second = 0; second < 60; second++) {
          for (let one = 1; one <= 30; one++)
            batcher.addUnsafe(agentIdOf(one), facts(10, `${second}`, second))
          yield* TestClock.adjust("1 second")
          yield* assertAccount({ refused: 0, discarded: 0, written: 0 })
        }
        assert.strictEqual((yield* batcher.status)._tag, "Unavailable")
        rule({})
        inject({ write: [] })
        yield* TestClock.adjust(2 * interval)
        yield* assertAccount({ refused: 0, discarded: 0, written: 300, pending: 0 })
        for (const { value } of held.values()) assert.strictEqual(value, "59")
      }
    })
  )

  it.effect("publishes nothing, leaves success metrics untouched and counts failed statements", () =>
    Effect.gen(function* () {
      const started = yield* start()
      const { batcher, logs, metrics, publishes, until, valueOf, writes } = started
      writes.answer(Effect.fail(Store.unavailable(new Error("server is shutting down"))))
      yield* batcher.add(agent, facts(3))
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

  it.effect("is one though the errors cause each other", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, logs, writes } = yield* start()
      const [one, two] = [new Error("one"), new Error("two")]
      one.cause = two
      two.cause = one
      writes.answer(Effect.fail(Store.unavailable(one)))
      yield* batcher.add(agent, facts(1))
      yield* batcher.flush
      assert.include((yield* logs.next("Warn")).message, "store unavailable")
      yield* TestClock.adjust(interval)
      yield* assertAccount({ written: 1, pending: 0 })
    })
  )

  it.effect('costs the batch with onWriteFailure "discard", and nothing that comes later', () =>
    Effect.gen(function* () {
      const started = yield* start({ onWriteFailure: "discard" })
      const { assertAccount, batcher, inject, logs, writes } = started
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(4))
      yield* TestClock.adjust(interval)
      yield* assertAccount({ discarded: 4, pending: 0 })
      inject({ write: [] })
      batcher.addUnsafe(other, facts(2))
      yield* TestClock.adjust(interval)
      yield* assertAccount({ discarded: 4, written: 2 })
      assert.deepStrictEqual(writes.times, [interval, 2 * interval])
      assert.strictEqual(warnings(logs.lines)[0]?.message, "discarded 4 rows: the store is unavailable: down")
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 2, discarded: 4, agents: 1 })
    })
  )

  it.effect('leaves refused rows apart with onWriteFailure "discard"', () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule } = yield* start({ onWriteFailure: "discard" })
      rule({ refuses: refusesPoison() })
      batcher.addUnsafe(agent, [...facts(4), fact("bad", poison(""))])
      yield* batcher.flush
      yield* assertAccount({ written: 4, refused: 1, discarded: 0 })
    })
  )

  it.effect("floods no log where the store comes and goes", () =>
    Effect.gen(function* () {
      const { batcher, logs, writes } = yield* start({ maxBatchSize: 1 })
      let calls = 0
      writes.answerAll(() =>
        calls++ % 2 === 0 ? Effect.fail(Store.unavailable(new Error("server is shutting down"))) : Effect.void
      )
      for (let second = 0; second < 100; second++) {
        yield* batcher.add(agent, [fact("cpu", "", second)])
        yield* TestClock.adjust("1 second")
      }
      assert.isAtLeast(calls, 200)
      assert.deepStrictEqual(
        warnings(logs.lines).map(({ at, message }) => [Math.floor(at / 1000), message.slice(0, 15)]),
        Array.from({ length: 10 }, (_, index) => [
          [10 * index, "store unavailab"],
          [10 * index, "store available"]
        ]).flat()
      )
    })
  )
})

describe("A write whose outcome is unknown is repeated, and counted once:", () => {
  const cases: ReadonlyArray<readonly [string, Fault, number]> = [
    ["the connection was lost before the answer", { _tag: "AnswerLost" }, 2],
    ["cut by writeTimeout", { _tag: "Hang", interruptible: true }, 1],
    ["cut by writeTimeout although nothing interrupts it", { _tag: "Hang", interruptible: false }, 1],
    ["it landed after writeTimeout", { _tag: "Late", millis: 2_500 }, 2],
    ["the store died", { _tag: "Die" }, 1],
    ["the store threw", { _tag: "Throw" }, 1],
    ["the store interrupted itself", { _tag: "Interrupt" }, 1]
  ]
  it.effect.each(cases)("%s", ([, fault, landings]) =>
    Effect.gen(function* () {
      const { applied, assertAccount, batcher, inject, published } = yield* start({ writeTimeout: 2_000 })
      inject({ write: [fault] })
      batcher.addUnsafe(agent, facts(3, "new", 2))
      yield* TestClock.adjust(interval + 1)
      inject({ write: [] })
      yield* TestClock.adjust(2_000 + interval)
      yield* assertAccount({ written: 3, pending: 0, inFlight: 0, discarded: 0, superseded: 0 })
      assert.strictEqual(applied.length, 3 * landings)
      assert.strictEqual(new Set(published.flatMap(({ agents }) => agents)).size, 1)
    })
  )

  it.effect("and says after how long it was given up", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, logs, until, writes } = yield* start({ writeTimeout: "10 seconds" })
      writes.answer(Effect.never)
      yield* batcher.add(agent, facts(3))
      yield* TestClock.adjust("14999 millis")
      yield* assertAccount({ inFlight: 3 })
      yield* TestClock.adjust("1 millis")
      yield* assertAccount({ inFlight: 0, pending: 3 })
      assert.strictEqual(
        (yield* logs.next("Warn")).annotations["error"],
        "no answer within 10000 ms, outcome unknown"
      )
      yield* TestClock.adjust("1 second")
      yield* until(({ written }) => written === 3)
    })
  )

  it.effect("a writeTimeout of 0 waits as long as it takes", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, logs, writes } = yield* start({ writeTimeout: 0 })
      inject({ write: [{ _tag: "Delay", millis: 3_600_000 }] })
      batcher.addUnsafe(agent, facts(3))
      yield* TestClock.adjust("59 minutes")
      yield* assertAccount({ inFlight: 3 })
      yield* TestClock.adjust("2 minutes")
      yield* assertAccount({ written: 3 })
      assert.strictEqual(writes.calls.length, 1)
      assert.deepStrictEqual(warnings(logs.lines), [])
    })
  )

  it.effect("a defect of the store is logged as what it is, with its stack", () =>
    Effect.gen(function* () {
      const { batcher, logs, until, writes } = yield* start()
      writes.answer(Effect.die(new TypeError("a bug in the store")))
      yield* batcher.add(agent, facts(3))
      yield* batcher.flush
      const line = yield* logs.next("Error")
      assert.include(line.message, "the write of MetadataBatcher died")
      assert.include(line.message, "a bug in the store")
      yield* TestClock.adjust(interval)
      yield* until(({ written }) => written === 3)
    })
  )
})
