/** `unchanged`: what says what was last written waits, and is written in time. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as AgentIdChunks from "../src/AgentIdChunks.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Store from "../src/Store.ts"
import * as Fakes from "./support/Fakes.ts"
import { agentIdOf, assertAddsUp, fact, facts, identify, makeWorld, now, rowsOf } from "./support/Fakes.ts"

const [agent, other] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000

/** A batcher that has subscribed to what others announce. */
const start = Effect.fnUntraced(function* (...args: Parameters<typeof Fakes.start>) {
  const started = yield* Fakes.start(...args)
  yield* TestClock.adjust(0)
  return started
})

/** Adds a fact that is collected now. */
const report = (
  { batcher }: Pick<Effect.Success<ReturnType<typeof start>>, "batcher">,
  value: string,
  key = "cpu",
  by = agent
) => Effect.map(now, (at) => batcher.addUnsafe(by, [fact(key, value, at)]))

describe("What says what was last written", () => {
  it.effect("waits, is written so long after the last write, and its agent is not announced for it", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval, unchanged: "30 seconds" })
      const { applied, assertAccount, batcher, held, metrics, published, valueOf } = started
      for (let second = 0; second < 120; second++) {
        yield* report(started, "7 %")
        yield* TestClock.adjust("1 second")
        const { collectedAt = 0 } = held.get(identify({ agentId: agent, key: "cpu" })) ?? {}
        assert.isAtMost((yield* now) - collectedAt, 35_000)
      }
      // Two minutes of one value: once at first and then every 30 to 35 s.
      assert.strictEqual(applied.length, 4)
      assert.strictEqual(published.length, 1)
      yield* assertAccount({ offered: 120, written: 4, dropped: 0, discarded: 0 })
      const { unchanged } = yield* batcher.accounting
      assert.isAtLeast(unchanged, 15)
      assert.strictEqual((yield* valueOf(metrics.unchanged)).count, unchanged)
    })
  )

  it.effect("is written though its agent has fallen silent", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval, unchanged: "30 seconds" })
      const { assertAccount, held } = started
      yield* report(started, "7 %")
      yield* TestClock.adjust("10 seconds")
      yield* report(started, "7 %")
      yield* TestClock.adjust("10 seconds")
      yield* assertAccount({ written: 1, pending: 1 })
      yield* TestClock.adjust("20 seconds")
      yield* assertAccount({ written: 2, pending: 0, unchanged: 0 })
      assert.strictEqual(held.get(identify({ agentId: agent, key: "cpu" }))?.collectedAt, 10_000)
    })
  )

  it.effect("gives way to what is different at the next flush", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval, unchanged: "1 hour" })
      const { assertAccount, published, valueHeld } = started
      yield* report(started, "X")
      yield* TestClock.adjust(interval)
      yield* report(started, "X")
      yield* TestClock.adjust(interval)
      yield* assertAccount({ written: 1, pending: 1 })
      yield* report(started, "Y")
      yield* TestClock.adjust(interval)
      assert.strictEqual(valueHeld(agent, "cpu"), "Y")
      yield* assertAccount({ written: 2, unchanged: 1, pending: 0 })
      assert.strictEqual(published.length, 2)
    })
  )

  it.effect("is decided when a batch is taken: X, Y, X while one waits is no change", () =>
    Effect.gen(function* () {
      const started = yield* start({ interval, unchanged: "1 hour" })
      const { assertAccount, batcher } = started
      yield* report(started, "X")
      yield* batcher.flush
      for (const value of ["X", "Y", "X"]) {
        yield* TestClock.adjust("1 second")
        yield* report(started, value)
      }
      yield* batcher.flush
      yield* assertAccount({ written: 1, pending: 1, superseded: 1, unchanged: 1 })
      yield* report(started, "Y")
      yield* batcher.flush
      yield* assertAccount({ written: 2, pending: 0, unchanged: 2 })
    })
  )

  it.effect("is told from what differs by one character, in its error, or in where the value ends", () =>
    Effect.gen(function* () {
      const { applied, batcher } = yield* start({ interval, unchanged: "1 hour" })
      const said = [
        ["ab", ""],
        ["ab", "c"],
        ["abc", ""],
        ["a", "bc"],
        ["", "abc"],
        ["", ""],
        ["\u0000", ""],
        [" ", ""]
      ] as const
      for (const [at, [value, error]] of said.entries()) {
        if (value === "\u0000") continue
        batcher.addUnsafe(agent, [fact("cpu", value, at, error)])
        yield* batcher.flush
      }
      assert.strictEqual(applied.length, said.length - 1)
    })
  )

  it.effect("among other facts of its report leaves those as they are", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, published, writes } = yield* start({ interval, unchanged: "1 hour" })
      batcher.addUnsafe(agent, facts(10, "same"))
      batcher.addUnsafe(other, facts(10, "same"))
      yield* batcher.flush
      batcher.addUnsafe(
        agent,
        facts(10, "same", 1).map((one, i) => (i % 3 === 0 ? { ...one, value: "other" } : one))
      )
      batcher.addUnsafe(other, facts(10, "same", 1))
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.at(-1)?.keys, ["key 0", "key 3", "key 6", "key 9"])
      assert.deepStrictEqual(
        published.map(({ agents }) => agents),
        [[agent, other], [agent]]
      )
      yield* assertAccount({ written: 24, pending: 16 })
    })
  )
})

describe("What was last written is forgotten", () => {
  const seen = Effect.fnUntraced(function* (
    between: (started: Effect.Success<ReturnType<typeof start>>) => Effect.Effect<unknown>
  ) {
    const started = yield* start({ interval, unchanged: "1 hour", writeTimeout: 2_000 })
    batcherAdds(started, "X", 0)
    yield* started.batcher.flush
    yield* between(started)
    const before = started.applied.length
    batcherAdds(started, "X", 2)
    yield* TestClock.adjust(4 * interval)
    yield* assertAddsUp(yield* started.batcher.accounting)
    return started.applied.slice(before).map(({ value }) => value)
  })
  const batcherAdds = ({ batcher }: Effect.Success<ReturnType<typeof start>>, value: string, at: number) =>
    batcher.addUnsafe(agent, [fact("cpu", value, at)])

  it.effect("by nothing else", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* seen(() => Effect.void), [])
    })
  )

  it.effect("when the outcome of a write is not known", () =>
    Effect.gen(function* () {
      const written = yield* seen((started) =>
        Effect.gen(function* () {
          started.inject({ write: [{ _tag: "AnswerLost" }] })
          batcherAdds(started, "Y", 1)
          yield* started.batcher.flush
          started.inject({ write: [] })
        })
      )
      assert.deepStrictEqual(written, ["X"])
    })
  )

  it.effect("when the row was refused, and has given way since", () =>
    Effect.gen(function* () {
      const options = { interval, unchanged: "1 hour", maxBatchSize: 5, maxPending: 5 } as const
      const { assertAccount, batcher, rule, valueHeld } = yield* start(options)
      batcher.addUnsafe(agent, [fact("cpu", "X", 0), fact("disk", "", 0)])
      yield* batcher.flush
      rule({ refuses: ({ value }) => (value === "Y" ? "no" : undefined), tells: "names" })
      batcher.addUnsafe(agent, [fact("cpu", "Y", 1), fact("disk", "1", 1)])
      yield* batcher.flush
      yield* assertAccount({ refused: 1 })
      assert.strictEqual(batcher.addUnsafe(other, facts(5)), 5)
      yield* batcher.flush
      yield* assertAccount({ refused: 0, discarded: 1 })
      rule({})
      batcher.addUnsafe(agent, [fact("cpu", "Y", 2)])
      yield* TestClock.adjust(3 * interval)
      assert.strictEqual(valueHeld(agent, "cpu"), "Y")
    })
  )

  it.effect("when the row was passed over", () =>
    Effect.gen(function* () {
      for (const answer of [
        { changed: 0, superseded: [0], missing: [], refused: [] },
        { changed: 0, superseded: [], missing: [0], refused: [] }
      ]) {
        const written = yield* seen((started) => {
          started.writes.answer(Effect.succeed(answer))
          batcherAdds(started, "Y", 1)
          return started.batcher.flush
        })
        assert.deepStrictEqual(written, ["X"])
      }
    })
  )

  it.effect("when the agent is", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* seen(({ batcher }) => batcher.forget(agent)), ["X"])
    })
  )

  /** Two replicas on one store, which says nothing again for an hour. */
  const startTwo = Effect.gen(function* () {
    const shared = yield* makeWorld({ writeConcurrency: 2 })
    const options = { interval, unchanged: "1 hour" } as const
    return { shared, one: yield* start(options, shared), two: yield* start(options, shared) }
  })

  it.effect("when another replica announces the agent, though not when this one does", () =>
    Effect.gen(function* () {
      const { one, shared, two } = yield* startTwo
      yield* report(one, "X")
      yield* TestClock.adjust(interval)
      yield* report(one, "X")
      yield* TestClock.adjust(interval)
      yield* one.assertAccount({ written: 1, pending: 1 })
      yield* report(two, "Y")
      yield* TestClock.adjust(interval)
      // What waited is older than Y; it is written at once, and passed over.
      yield* report(one, "X")
      yield* TestClock.adjust(2 * interval)
      assert.strictEqual(shared.valueHeld(agent, "cpu"), "X")
      yield* one.assertAccount({ pending: 0 })
    })
  )

  it.effect("when another replica announces the agent, and what waited is announced if it is written", () =>
    Effect.gen(function* () {
      const { one, shared, two } = yield* startTwo
      yield* report(one, "X")
      yield* TestClock.adjust(interval)
      yield* TestClock.adjust(1_000)
      // Collected before what comes to the other replica, and written after it.
      yield* report(two, "Y")
      yield* TestClock.adjust(1_000)
      yield* report(one, "X")
      yield* one.batcher.flush
      yield* one.assertAccount({ written: 1, pending: 1 })
      yield* two.batcher.flush
      assert.strictEqual(shared.valueHeld(agent, "cpu"), "Y")
      const announced = shared.published.length
      yield* TestClock.adjust(interval)
      assert.strictEqual(shared.valueHeld(agent, "cpu"), "X")
      assert.isAbove(shared.published.length, announced)
    })
  )
})

describe("When another replica has written the same agent", () => {
  const startSeen = Effect.gen(function* () {
    const started = yield* start({ interval, unchanged: "1 hour", writeConcurrency: 2 })
    const say = (value: string, at: number) => started.batcher.addUnsafe(agent, [fact("cpu", value, at)])
    /** The other replica writes and says so; what it says is read before anything else happens. */
    const otherWrites = (value: string, at: number) =>
      Effect.gen(function* () {
        yield* started.store.batchUpdateMetadata({
          agentIds: [agent],
          keys: ["cpu"],
          values: [value],
          errors: [""],
          collectedAt: [at]
        })
        yield* started.pubsub.publish(MetadataBatcher.metadataBatchChannel, AgentIdChunks.encode([agent]))
        yield* TestClock.adjust(0)
      })
    const value = () => started.valueHeld(agent, "cpu")
    return { ...started, otherWrites, say, value }
  })

  it.effect("what rested is announced once it is written, since it replaces something else", () =>
    Effect.gen(function* () {
      const { batcher, otherWrites, published, say, value } = yield* startSeen
      say("X", 1)
      yield* batcher.flush
      say("X", 3)
      yield* batcher.flush
      yield* otherWrites("Y", 2)
      const before = published.length
      yield* TestClock.adjust(2 * interval)
      assert.deepStrictEqual([value(), published.length - before], ["X", 1])
    })
  )

  it.effect("what is in a write at that moment is not taken for what the store holds", () =>
    Effect.gen(function* () {
      const { batcher, otherWrites, say, value, writes } = yield* startSeen
      // The answer comes late, and so after what the other replica writes.
      writes.answer(Effect.void)
      const gate = writes.hold(Effect.succeed(Store.allChanged(1)))
      say("W", 0)
      yield* batcher.flush
      say("X", 1)
      const flush = yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* writes.began
      yield* otherWrites("Y", 2)
      yield* gate.open
      yield* Fiber.join(flush)
      say("X", 3)
      yield* TestClock.adjust(2 * interval)
      assert.strictEqual(value(), "X")
    })
  )

  it.effect("its notification is not taken for one's own that failed", () =>
    Effect.gen(function* () {
      const { batcher, inject, otherWrites, say, value } = yield* startSeen
      inject({ publish: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      say("X", 1)
      yield* batcher.flush
      inject({ publish: [] })
      yield* TestClock.adjust(interval)
      yield* otherWrites("Y", 2)
      say("X", 3)
      yield* TestClock.adjust(2 * interval)
      assert.strictEqual(value(), "X")
    })
  )
})

const below = (bound: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: bound - 1 }))

const Step = Schema.Union([
  Schema.TaggedStruct("Report", { agent: below(3), replica: below(2), values: Schema.Array(below(2)) }),
  Schema.TaggedStruct("Wait", { millis: below(6_000) }),
  Schema.TaggedStruct("Flush", { replica: below(2) })
])

const Steps = Schema.Array(Step).check(Schema.isMaxLength(60))

describe("Whatever is reported, through whichever of two replicas", () => {
  it.effect.prop(
    "what the table shows is never older than `unchanged` plus one interval against a plain fold",
    { steps: Steps },
    ({ steps }) =>
      Effect.gen(function* () {
        const [every, unchanged] = [1_000, 4_000]
        const shared = yield* makeWorld({ writeConcurrency: 2 })
        const options = { interval: every, unchanged, maxBatchSize: 500 }
        const replicas = [yield* start(options, shared), yield* start(options, shared)]
        const reports = new Map<string, Array<{ value: string; at: number }>>()

        const check = Effect.gen(function* () {
          const at = yield* now
          for (const [key, all] of reports) {
            const old = all.findLast((one) => one.at <= at - unchanged - every)
            if (old !== undefined) assert.isAtLeast(shared.held.get(key)?.collectedAt ?? -1, old.at)
          }
          for (const { batcher } of replicas) yield* assertAddsUp(yield* batcher.accounting)
        })

        for (const step of steps) {
          if (step._tag === "Report") {
            // Of two facts of one time the order of the writes decides, which is nobody's promise.
            yield* TestClock.adjust(1)
            const at = yield* now
            const agentId = agentIdOf(step.agent)
            const reported = step.values.map((value, key) => fact(`${key}`, `${value}`, at))
            replicas[step.replica]?.batcher.addUnsafe(agentId, reported)
            for (const { key, value } of reported) {
              const id = identify({ agentId, key })
              reports.set(id, [...(reports.get(id) ?? []), { value, at }])
            }
          }
          if (step._tag === "Flush")
            yield* Effect.forkChild(replicas[step.replica]?.batcher.flush ?? Effect.void)
          if (step._tag === "Wait") {
            for (let left = step.millis; left > 0; left -= 500) {
              yield* TestClock.adjust(Math.min(left, 500))
              yield* check
            }
          }
          yield* check
        }
        yield* TestClock.adjust(unchanged + 3 * every)
        for (const [key, all] of reports) {
          assert.strictEqual(shared.held.get(key)?.value, all.at(-1)?.value)
        }
        for (const { batcher } of replicas) {
          assert.deepInclude(yield* batcher.accounting, { pending: 0, inFlight: 0, discarded: 0, dropped: 0 })
        }
      }),
    { arbitrary: { runs: 100 } }
  )
})

describe("The memory of what was written", () => {
  it.effect("holds for many keys of one agent, in whatever order they come and go", () =>
    Effect.gen(function* () {
      const { applied, batcher, writes } = yield* start({ interval, unchanged: "1 hour" })
      const report = (at: number, changed: (number: number) => boolean = () => false) =>
        Effect.suspend(() => {
          const before = applied.length
          const given = facts(100, "", at).map((one, number) =>
            changed(number) ? { ...one, value: `${at}` } : one
          )
          batcher.addUnsafe(agent, at % 2 === 0 ? given : given.toReversed())
          return Effect.map(batcher.flush, () => applied.length - before)
        })
      assert.strictEqual(yield* report(0), 100)
      assert.strictEqual(yield* report(1), 0)
      // Every third changes, and the store refuses what it is told of them: so they are forgotten.
      const third = (number: number) => number % 3 === 0
      const positions = Array.from({ length: 34 }, (_, position) => position)
      writes.answer(Effect.succeed({ changed: 0, superseded: positions, missing: [], refused: [] }))
      yield* report(2, third)
      assert.strictEqual(yield* report(3), 34)
      assert.strictEqual(yield* report(4), 0)
    })
  )

  it.effect("is bounded by maxPending: beyond it everything is written", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher } = yield* start({
        interval,
        unchanged: "1 hour",
        maxBatchSize: 10,
        maxPending: 40
      })
      const round = (agents: ReadonlyArray<number>) =>
        Effect.forEach(agents, (number) => {
          batcher.addUnsafe(agentIdOf(number), facts(10, "same"))
          return batcher.flush
        })
      yield* round([0, 1, 2, 3, 4, 5])
      yield* assertAccount({ written: 60 })
      yield* round([3, 4, 5])
      // Of four agents it is remembered what was written: one of these is among them, and waits.
      yield* assertAccount({ written: 80, pending: 10 })
    })
  )

  it.effect("makes room for others when it is old", () =>
    Effect.gen(function* () {
      const { batcher, assertAccount } = yield* start({
        interval,
        unchanged: "1 minute",
        maxBatchSize: 10,
        maxPending: 10
      })
      batcher.addUnsafe(agent, facts(10, "same"))
      yield* batcher.flush
      yield* TestClock.adjust("2 minutes")
      batcher.addUnsafe(other, facts(10, "same", 120_000))
      yield* batcher.flush
      batcher.addUnsafe(other, facts(10, "same", 120_001))
      yield* batcher.flush
      yield* assertAccount({ written: 20, pending: 10 })
    })
  )

  it.effect("costs nobody a write that failed: it is repeated as it was", () =>
    Effect.gen(function* () {
      const { batcher, valueHeld, writes } = yield* start({ interval, unchanged: "1 hour" })
      batcher.addUnsafe(agent, [fact("cpu", "X", 0)])
      yield* batcher.flush
      writes.answer(Effect.fail(Store.unavailable("down")))
      batcher.addUnsafe(agent, [fact("cpu", "Y", 1)])
      yield* batcher.flush
      batcher.addUnsafe(agent, [fact("cpu", "X", 2)])
      yield* TestClock.adjust(2 * interval)
      assert.strictEqual(valueHeld(agent, "cpu"), "X")
      assert.deepStrictEqual(writes.calls.map(rowsOf).at(-1), [[agent, "cpu", "X", 2]])
    })
  )
})
