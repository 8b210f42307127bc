/**
 * What each kind of bad day costs, by name. Random mixtures of them are in
 * `Simulation.test.ts`, the same against a real server in the PostgreSQL tests.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"

const maxIsolationStatements = 20

import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import { Pubsub } from "../src/Pubsub.ts"
import { Store } from "../src/Store.ts"
import { agentIdOf, assertAddsUp, fact, facts, type LogLine, run } from "./support/Fakes.ts"
import * as Faults from "./support/Faults.ts"

const [agent, other] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000
const down: Faults.Fault = { _tag: "Fail", reason: "Unavailable", millis: 0 }

/** A batcher over a store and a pubsub that suffer. */
const start = Effect.fnUntraced(function* (
  options?: MetadataBatcher.Options,
  faults?: Effect.Success<ReturnType<typeof Faults.make>>,
  tells: Faults.Telling = "nothing"
) {
  const suffering =
    faults ??
    (yield* Faults.make({
      tells,
      writeTimeout: typeof options?.writeTimeout === "number" ? options.writeTimeout : 30_000
    }))
  const { batcher, close, logs } = yield* run(
    "metadata",
    MetadataBatcher.make({ interval, ...options }).pipe(
      Effect.provideService(Store, suffering.store),
      Effect.provideService(Pubsub, suffering.pubsub)
    )
  )
  /** What the account says at this moment, which has to add up. */
  const assertAccount = Effect.fnUntraced(function* (
    expected: Partial<Effect.Success<typeof batcher.accounting>>
  ) {
    const account = yield* batcher.accounting
    yield* assertAddsUp(account)
    assert.deepInclude(account, expected)
    assert.deepStrictEqual(suffering.violations, [])
  })
  return {
    ...suffering,
    batcher,
    logs: logs.lines,
    assertAccount,
    /** Closes the batcher, letting time pass until it has: how long that took, and what was said. */
    close: Effect.gen(function* () {
      const [from, said] = [yield* now, logs.lines.length]
      const closing = yield* Effect.forkChild(Effect.andThen(close, now), { startImmediately: true })
      for (let waited = 0; closing.pollUnsafe() === undefined && waited < 60; waited++) {
        yield* TestClock.adjust("1 second")
      }
      return { took: (yield* Fiber.join(closing)) - from, logs: logs.lines.slice(said) }
    })
  }
})

const now = TestClock.testClockWith((clock) => Effect.sync(clock.currentTimeMillisUnsafe))

const warnings = (logs: ReadonlyArray<LogLine>) =>
  logs.filter(({ level }) => level === "Warn" || level === "Error")

const valueOf = ({ held }: Faults.Faults, agentId: typeof agent, key: string) =>
  held.get(Faults.identify({ agentId, key }))?.value

describe("an outage", () => {
  it.effect(
    "loses nothing and is retried with a growing pause below the interval, one attempt at a time",
    () =>
      Effect.gen(function* () {
        const day = yield* start({ maxBatchSize: 100, writeConcurrency: 1 })
        day.inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 20 }] })
        for (let report = 0; report < 120; report++) {
          day.batcher.addUnsafe(agentIdOf(report), facts(2, `${report}`))
          yield* TestClock.adjust("1 second")
        }
        yield* day.assertAccount({ dropped: 0, discarded: 0, written: 0, pending: 240 })
        // The sizes of the pauses: `violations` says that no two attempts overlapped.
        const pauses = day.calls.slice(1).map((call, i) => call.startedAt - (day.calls[i]?.endedAt ?? 0))
        assert.isBelow(pauses[0] ?? 0, 200)
        assert.isTrue(pauses.every((pause) => pause <= interval))
        assert.isBelow(day.calls.length, 40)
        assert.isAbove(day.calls.length, 20)

        day.inject({ write: [] })
        yield* TestClock.adjust(2 * interval)
        yield* day.assertAccount({ dropped: 0, discarded: 0, written: 240, pending: 0 })
        assert.strictEqual(day.held.size, 240)
        assert.strictEqual(new Set(day.published.flatMap(({ agents }) => agents)).size, 120)
      })
  )

  it.effect("is one warning when it begins, one a minute and one when it ends", () =>
    Effect.gen(function* () {
      const day = yield* start()
      day.inject({ write: [down] })
      day.batcher.addUnsafe(agent, facts(3, "secret"))
      yield* TestClock.adjust("150 seconds")
      day.inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      assert.isAbove(day.calls.length, 20)
      const said = warnings(day.logs)
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
      assert.deepInclude(said[1]?.annotations, { pending: 3, dropped: 0 })
      assert.isAtLeast((said[2]?.at ?? 0) - (said[1]?.at ?? 0), 60_000)
    })
  )

  it.effect("is bounded by maxPending: what waits still takes newer values, new keys are dropped", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 10, maxPending: 20, interval })
      day.inject({ write: [down] })
      day.batcher.addUnsafe(agent, facts(20, "old", 1))
      yield* TestClock.adjust("1 minute")
      yield* day.assertAccount({ pending: 20, dropped: 0 })
      day.batcher.addUnsafe(agent, [fact("key 7", "new", 2), fact("another", "", 2)])
      day.batcher.addUnsafe(other, facts(3))
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ pending: 20, dropped: 4, superseded: 1 })
      assert.isTrue(warnings(day.logs).some(({ annotations }) => annotations["maxPending"] === 20))
      day.inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      yield* day.assertAccount({ written: 20, pending: 0 })
      assert.strictEqual(valueOf(day, agent, "key 7"), "new")
    })
  )

  it.effect('costs the batch with onWriteFailure "discard", and nothing that comes later', () =>
    Effect.gen(function* () {
      const day = yield* start({ onWriteFailure: "discard" })
      day.inject({ write: [down] })
      day.batcher.addUnsafe(agent, facts(4))
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ discarded: 4, pending: 0 })
      day.inject({ write: [] })
      day.batcher.addUnsafe(other, facts(2))
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ discarded: 4, written: 2 })
      assert.strictEqual(day.calls.length, 2)
      assert.include(warnings(day.logs)[0]?.message, "discarded 4")
    })
  )

  it.effect("that begins again during the catching up is recovered from again", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 10 })
      day.inject({ write: [down] })
      day.batcher.addUnsafe(agent, facts(50))
      yield* TestClock.adjust("1 minute")
      // Up for one statement, then down as soon as the next batch goes out.
      day.inject({ write: [{ _tag: "Delay", millis: 1 }, down, down, down] })
      yield* TestClock.adjust("1 minute")
      day.inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      yield* day.assertAccount({ written: 50, pending: 0 })
    })
  )
})

describe("a write whose outcome is unknown is repeated, and counted once:", () => {
  const cases: ReadonlyArray<readonly [string, Faults.Fault, number]> = [
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
      const day = yield* start({ writeTimeout: 2_000 })
      day.inject({ write: [fault] })
      day.batcher.addUnsafe(agent, facts(3, "new", 2))
      yield* TestClock.adjust(interval + 1)
      day.inject({ write: [] })
      yield* TestClock.adjust(2_000 + interval)
      yield* day.assertAccount({ written: 3, pending: 0, inFlight: 0, discarded: 0 })
      assert.strictEqual(day.calls.length, 2)
      assert.strictEqual(day.applied.length, 3 * landings)
      assert.strictEqual(day.published.length, 1)
    })
  )

  it.effect("an old value that lands late does not replace the newer one", () =>
    Effect.gen(function* () {
      const day = yield* start({ writeTimeout: 2_000 })
      day.inject({ write: [{ _tag: "Late", millis: 3 * interval }] })
      day.batcher.addUnsafe(agent, [fact("cpu", "old", 1)])
      yield* TestClock.adjust(interval + 1)
      day.inject({ write: [] })
      day.batcher.addUnsafe(agent, [fact("cpu", "new", 2)])
      yield* TestClock.adjust(5 * interval)
      assert.deepStrictEqual(
        day.applied.map((row) => row.value),
        ["new", "old"]
      )
      assert.strictEqual(valueOf(day, agent, "cpu"), "new")
    })
  )

  it.effect("a writeTimeout of 0 waits as long as it takes", () =>
    Effect.gen(function* () {
      const day = yield* start({ writeTimeout: 0 })
      day.inject({ write: [{ _tag: "Delay", millis: 3_600_000 }] })
      day.batcher.addUnsafe(agent, facts(3))
      yield* TestClock.adjust("59 minutes")
      yield* day.assertAccount({ inFlight: 3 })
      yield* TestClock.adjust("2 minutes")
      yield* day.assertAccount({ written: 3 })
      assert.strictEqual(day.calls.length, 1)
      assert.deepStrictEqual(warnings(day.logs), [])
    })
  )
})

describe("a canceled statement", () => {
  it.effect("is a debug line, and the batch is written again", () =>
    Effect.gen(function* () {
      const day = yield* start()
      day.inject({ write: [{ _tag: "Fail", reason: "Canceled", millis: 0 }] })
      day.batcher.addUnsafe(agent, facts(3))
      yield* TestClock.adjust(interval)
      assert.isTrue(day.logs.some(({ level, message }) => level === "Debug" && message.includes("canceled")))
      day.inject({ write: [] })
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ written: 3 })
      assert.deepStrictEqual(warnings(day.logs), [])
    })
  )
})

describe("bad rows", () => {
  const poisoned = fact("key 77", Faults.poison("secret"))
  const with500 = [...facts(500).filter(({ key }) => key !== poisoned.key), poisoned]
  const statementsFor: ReadonlyArray<readonly [string, Faults.Telling, number]> = [
    ["as the store names it: 1 statement", "names", 1],
    ["though it has to be found: at most 18 statements more", "nothing", 19]
  ]
  it.effect.each(statementsFor)(
    "one of 500 is discarded, 499 are written in the same flush, %s",
    ([, tells, most]) =>
      Effect.gen(function* () {
        const day = yield* start({ maxBatchSize: 500 }, undefined, tells)
        day.batcher.addUnsafe(agent, with500)
        yield* day.batcher.flush
        yield* day.assertAccount({ written: 499, discarded: 1, pending: 0 })
        assert.strictEqual(day.held.size, 499)
        assert.isAtMost(day.calls.length, most)
        assert.deepStrictEqual(
          day.published.map(({ agents }) => agents),
          [[agent]]
        )
        const [said, ...more] = warnings(day.logs)
        assert.deepStrictEqual(more, [])
        assert.deepStrictEqual(said?.annotations["rows"], [{ agent, key: poisoned.key }])
      })
  )

  it.effect("are named in the log by agent and key, never by their value", () =>
    Effect.gen(function* () {
      for (const tells of ["nothing", "names"] as const) {
        const day = yield* start({ onWriteFailure: "discard" }, undefined, tells)
        day.batcher.addUnsafe(agent, [fact("a", "secret"), fact("b", Faults.poison("secret"), 0, "secret")])
        yield* day.batcher.flush
        day.inject({ write: [down] })
        day.batcher.addUnsafe(agent, [fact("c", "secret")])
        yield* day.batcher.flush
        assert.isAtLeast(warnings(day.logs).length, 1)
        for (const line of day.logs) assert.notInclude(JSON.stringify(line), "secret")
      }
    })
  )

  it.effect(
    "of which a flush is full cost it a bounded number of statements, and no good row in the end",
    () =>
      Effect.gen(function* () {
        const day = yield* start({ maxBatchSize: 500 })
        const mixed = facts(500).map((good, i) =>
          i % 2 === 0 ? good : { ...good, value: Faults.poison(`${i}`) }
        )
        day.batcher.addUnsafe(agent, mixed)
        let statements = 0
        for (let flush = 0; flush <= Math.ceil(500 / maxIsolationStatements); flush++) {
          yield* day.batcher.flush
          assert.isAtMost(day.calls.length - statements, maxIsolationStatements + 1)
          statements = day.calls.length
        }
        yield* day.assertAccount({ written: 250, discarded: 250, pending: 0 })
      })
  )

  it.effect("that the store names one at a time cost a bounded number of statements as well", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 500 })
      day.inject({ write: [{ _tag: "Reject", names: true }] })
      day.batcher.addUnsafe(agent, facts(500))
      yield* day.batcher.flush
      assert.isAtMost(day.calls.length, maxIsolationStatements + 1)
      day.inject({ write: [] })
      yield* TestClock.adjust(8 * interval)
      yield* day.assertAccount({ pending: 0, discarded: day.calls.flatMap(({ blamed }) => blamed).length })
    })
  )

  it.effect("sent again and again do not slow the others: from the second flush on they go apart", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 500 })
      const garbage = facts(5).map((bad) => ({ ...bad, value: Faults.poison("again") }))
      const report = Effect.suspend(() => {
        day.batcher.addUnsafe(agent, facts(400))
        day.batcher.addUnsafe(other, garbage)
        return day.batcher.flush
      })
      yield* report
      const before = day.calls.length
      yield* report
      // One statement for what is clean, one for each row that has been rejected before.
      assert.deepStrictEqual(
        day.calls.slice(before).map(({ outcome, rows }) => [outcome, rows.length]),
        [["acknowledged", 400], ...garbage.map(() => ["rejected", 1])]
      )
      yield* day.assertAccount({ written: 800, discarded: 10 })

      day.batcher.addUnsafe(other, facts(5, "good"))
      yield* day.batcher.flush
      assert.strictEqual(valueOf(day, other, "key 3"), "good")
      day.batcher.addUnsafe(other, facts(5, "better"))
      yield* day.batcher.flush
      assert.strictEqual(day.calls.at(-1)?.rows.length, 5)
      yield* day.assertAccount({ written: 810, discarded: 10 })
    })
  )
})

describe("replicas", () => {
  it.effect(
    "that write the same keys at once leave the newest value, whatever order their writes end in",
    () =>
      Effect.gen(function* () {
        const shared = yield* Faults.make({ writeConcurrency: 2 })
        const [fast, slow] = [yield* start({}, shared), yield* start({}, shared)]
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
        yield* slow.assertAccount({ written: 200 })
        assert.isTrue(shared.applied.at(-1)?.value.startsWith("old"))
        for (const { value } of shared.held.values()) assert.strictEqual(value, "new 19")
      })
  )
})

describe("a shutdown", () => {
  it.effect("while the store is dead ends at shutdownTimeout, counts what is lost and logs the count", () =>
    Effect.gen(function* () {
      for (const fault of [down, { _tag: "Hang", interruptible: false } as const]) {
        const day = yield* start({ maxBatchSize: 10, shutdownTimeout: 15_000 })
        day.inject({ write: [fault] })
        day.batcher.addUnsafe(agent, facts(25))
        yield* TestClock.adjust(interval)
        const { logs, took } = yield* day.close
        assert.strictEqual(took, 15_000)
        yield* day.assertAccount({ written: 0, discarded: 25, pending: 0, inFlight: 0, queued: 0 })
        assert.deepStrictEqual(
          logs.filter(({ level }) => level === "Error").map(({ message }) => /\d+/.exec(message)?.[0]),
          ["25"]
        )
      }
    })
  )

  it.effect("during an outage that ends in time loses nothing, in as many batches as it takes", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 10, shutdownTimeout: 15_000 })
      day.inject({ write: [down] })
      day.batcher.addUnsafe(agent, facts(45))
      yield* TestClock.adjust("1 minute")
      // Still queued when the close begins.
      day.batcher.addUnsafe(other, facts(5))
      const closing = yield* Effect.forkChild(day.close)
      yield* TestClock.adjust("8 seconds")
      day.inject({ write: [] })
      const { logs, took } = yield* Fiber.join(closing)
      assert.isBelow(took, 15_000)
      yield* day.assertAccount({ written: 50, discarded: 0, dropped: 0 })
      assert.strictEqual(day.held.size, 50)
      assert.deepStrictEqual(new Set(day.published.flatMap(({ agents }) => agents)), new Set([agent, other]))
      assert.isFalse(logs.some(({ level }) => level === "Error"))
    })
  )

  it.effect("awaits the write in flight instead of cutting it", () =>
    Effect.gen(function* () {
      const day = yield* start()
      day.inject({ write: [{ _tag: "Delay", millis: 10_000 }] })
      day.batcher.addUnsafe(agent, facts(5))
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ inFlight: 5 })
      const { took } = yield* day.close
      assert.strictEqual(took, 10_000)
      yield* day.assertAccount({ written: 5, discarded: 0 })
      assert.strictEqual(day.calls.length, 1)
    })
  )

  it.effect("is not held up by a channel that hangs: everything is written first", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 10 })
      day.inject({ publish: [{ _tag: "Hang", interruptible: false }] })
      day.batcher.addUnsafe(agent, facts(50))
      const { took } = yield* day.close
      assert.isAtMost(took, 15_000)
      yield* day.assertAccount({ written: 50, discarded: 0 })
    })
  )

  it.effect("turns every later add into a drop, said once", () =>
    Effect.gen(function* () {
      const day = yield* start()
      const { took } = yield* day.close
      assert.strictEqual(took, 0)
      yield* day.batcher.add(agent, facts(3))
      assert.strictEqual(day.batcher.addUnsafe(agent, facts(2)), 0)
      yield* day.batcher.flush
      yield* day.assertAccount({ offered: 5, dropped: 5 })
      assert.strictEqual(warnings(day.logs).length, 1)
    })
  )
})

describe("a bad pubsub", () => {
  const cases: ReadonlyArray<readonly [string, Faults.Fault]> = [
    ["that fails", down],
    ["that refuses", { _tag: "Reject", names: false }],
    ["that dies", { _tag: "Die" }],
    ["that throws", { _tag: "Throw" }],
    ["that interrupts", { _tag: "Interrupt" }],
    ["that hangs", { _tag: "Hang", interruptible: true }],
    ["that hangs and cannot be interrupted", { _tag: "Hang", interruptible: false }]
  ]
  it.effect.each(cases)(
    "%s costs notifications, never a fact, a second write or a later flush",
    ([, fault]) =>
      Effect.gen(function* () {
        const day = yield* start({ maxBatchSize: 10 })
        day.inject({ publish: [fault] })
        for (let minute = 1; minute <= 3; minute++) {
          day.batcher.addUnsafe(agent, facts(35, `${minute}`, minute))
          // A notification that hangs for `writeTimeout` must not delay the second batch or the next flush.
          yield* TestClock.adjust(2 * interval)
          yield* day.assertAccount({ written: 35 * minute, pending: 0, inFlight: 0 })
        }
        assert.strictEqual(day.applied.length, 105)
        yield* TestClock.adjust("1 minute")
        assert.isTrue(warnings(day.logs).some(({ message }) => message.includes("failed to publish")))

        day.inject({ publish: [] })
        const before = day.published.length
        day.batcher.addUnsafe(other, facts(1))
        yield* TestClock.adjust(interval)
        assert.strictEqual(day.published.length, before + 1)
      })
  )

  it.effect("does not keep the batcher from recovering from an outage that begins meanwhile", () =>
    Effect.gen(function* () {
      const day = yield* start({ maxBatchSize: 10, writeTimeout: 0 })
      day.inject({ write: [down], publish: [{ _tag: "Hang", interruptible: false }] })
      day.batcher.addUnsafe(agent, facts(5))
      yield* TestClock.adjust(2 * interval)
      day.inject({ write: [] })
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ written: 5 })

      day.inject({ write: [down] })
      day.batcher.addUnsafe(other, facts(5))
      yield* TestClock.adjust(2 * interval)
      day.inject({ write: [] })
      yield* TestClock.adjust(interval)
      yield* day.assertAccount({ written: 10, pending: 0 })
    })
  )
})
