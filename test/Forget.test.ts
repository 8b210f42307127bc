/** Once `forget` has returned, nothing of the agent is written until it reports again. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Batcher from "../src/Batcher.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf, fact, facts, identify, poison, refusesPoison, run, start } from "./support/Fakes.ts"

const [agent, other] = [agentIdOf(1), agentIdOf(2)]
const interval = 5_000

describe("forget", () => {
  it.effect("gives up what is queued and what is pending", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, writes } = yield* start({ interval })
      yield* batcher.add(agent, facts(3))
      yield* TestClock.adjust("1 second")
      batcher.addUnsafe(other, facts(2))
      batcher.addUnsafe(agent, facts(2))
      yield* batcher.forget(agent)
      yield* assertAccount({ discarded: 3, superseded: 2, pending: 2, queued: 0 })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        Array.from(held.values(), ({ agentId }) => agentId),
        [other, other]
      )
      assert.strictEqual(writes.calls.length, 1)
    })
  )

  it.effect("waits for a write that has some of it, and what that cannot write is not tried again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, writes } = yield* start({ interval })
      const gate = writes.hold(Effect.fail(Store.unavailable("down")))
      yield* batcher.add(agent, facts(3))
      yield* batcher.add(other, facts(2))
      yield* TestClock.adjust(interval)
      yield* writes.began
      yield* batcher.add(agent, facts(1, "newer", 1))
      const forgotten = yield* Effect.forkChild(batcher.forget(agent), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(forgotten.pollUnsafe())
      yield* gate.open
      yield* Fiber.join(forgotten)
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 2, discarded: 4, pending: 0 })
      assert.isTrue(Array.from(held.values()).every(({ agentId }) => agentId === other))
    })
  )

  it.effect("gives up what the store refuses of a write under way", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, rule, writes } = yield* start({ interval })
      rule({ refuses: refusesPoison(), tells: "names" })
      const gate = writes.hold()
      batcher.addUnsafe(agent, [fact("bad", poison("")), fact("good", "")])
      batcher.addUnsafe(other, facts(1))
      yield* TestClock.adjust(interval)
      yield* writes.began
      const forgotten = yield* Effect.forkChild(batcher.forget(agent), { startImmediately: true })
      yield* gate.open
      yield* Fiber.join(forgotten)
      yield* assertAccount({ refused: 0, discarded: 1 })
      rule({})
      yield* TestClock.adjust("1 minute")
      assert.isFalse(held.has(identify({ agentId: agent, key: "bad" })))
    })
  )

  it.effect("gives up what is only ever appended", () =>
    Effect.gen(function* () {
      const table: Array<string> = []
      let isDown = true
      const { assertAccount, batcher, metrics, valueOf } = yield* run(
        "log",
        Batcher.make<{ readonly user: string }>({
          name: "Log",
          options: { interval: "1 second" },
          accumulate: Batcher.appendOnly({ group: ({ user }) => user }),
          write: (entries) =>
            Effect.suspend((): Effect.Effect<void, unknown> => {
              if (isDown) return Effect.fail({ reason: { _tag: "Unavailable" } })
              table.push(...entries.map(({ user }) => user))
              return Effect.void
            })
        })
      )
      for (const user of ["ada", "bob", "ada"]) yield* batcher.add({ user })
      yield* TestClock.adjust("3 seconds")
      yield* batcher.forget("ada")
      yield* assertAccount({ pending: 1, discarded: 2 })
      isDown = false
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(table, ["bob"])
      assert.strictEqual((yield* valueOf(metrics.pendingBytes)).value, 0)
    })
  )

  it.effect("gives up what the store has refused, also while that is being tried again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule, writes } = yield* start({ interval })
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agent, [fact("bad", poison("")), fact("good", "")])
      batcher.addUnsafe(other, [fact("bad", poison("")), fact("good", "")])
      yield* batcher.flush
      yield* assertAccount({ refused: 2, written: 2 })
      yield* batcher.forget(agent)
      yield* assertAccount({ refused: 1, discarded: 1 })
      const gate = writes.hold()
      yield* TestClock.adjust(interval)
      const forgotten = yield* Effect.forkChild(batcher.forget(other), { startImmediately: true })
      yield* gate.open
      yield* Fiber.join(forgotten)
      yield* TestClock.adjust("2 minutes")
      yield* assertAccount({ refused: 0, discarded: 2, written: 2 })
    })
  )

  it.effect("gives up what came for a refused row while that is being tried again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, rule, writes } = yield* start()
      rule({ refuses: refusesPoison(), tells: "names" })
      yield* batcher.add(agent, [fact("bad", poison("1"), 1)])
      yield* batcher.add(other, facts(3))
      yield* batcher.flush
      const gate = writes.hold()
      yield* TestClock.adjust("1 second")
      yield* batcher.add(agent, [fact("bad", poison("2"), 2)])
      yield* TestClock.adjust(0)
      yield* assertAccount({ inFlight: 1, refused: 1 })
      const forgotten = yield* Effect.forkChild(batcher.forget(agent), { startImmediately: true })
      yield* assertAccount({ inFlight: 1, refused: 0, pending: 0, discarded: 1 })
      yield* gate.open
      yield* Fiber.join(forgotten)
      yield* assertAccount({ inFlight: 0, refused: 0, pending: 0, discarded: 2 })
      // It is as if the agent had never reported.
      yield* batcher.add(agent, [fact("bad", poison("3"), 3), fact("good", "", 3)])
      yield* batcher.flush
      yield* assertAccount({ refused: 1, written: 4 })
      assert.strictEqual(held.size, 4)
    })
  )

  it.effect("gives up what is to be written again because its time has come", () =>
    Effect.gen(function* () {
      const { applied, assertAccount, batcher, writes } = yield* start({ interval, unchanged: "20 seconds" })
      // It subscribes first: what others may have written before is not known.
      yield* TestClock.adjust(0)
      batcher.addUnsafe(agent, facts(3, "same", 0))
      yield* batcher.flush
      batcher.addUnsafe(agent, facts(3, "same", 1))
      yield* batcher.flush
      const gate = writes.hold()
      batcher.addUnsafe(other, facts(1))
      yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* writes.began
      yield* TestClock.adjust("25 seconds")
      // Whoever adds has it looked for what is due.
      batcher.addUnsafe(other, facts(1, "", 1))
      yield* TestClock.adjust(0)
      yield* assertAccount({ pending: 4, inFlight: 1 })
      const forgotten = yield* Effect.forkChild(batcher.forget(agent), { startImmediately: true })
      yield* assertAccount({ pending: 1, discarded: 3 })
      yield* gate.open
      yield* Fiber.join(forgotten)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(applied.filter(({ agentId }) => agentId === agent).length, 3)
    })
  )

  it.effect("gives up what rests because it says what was last written", () =>
    Effect.gen(function* () {
      const { applied, assertAccount, batcher } = yield* start({ interval, unchanged: "20 seconds" })
      yield* TestClock.adjust(0)
      batcher.addUnsafe(agent, facts(3, "same", 0))
      yield* batcher.flush
      batcher.addUnsafe(agent, facts(3, "same", 1))
      yield* batcher.flush
      yield* assertAccount({ pending: 3 })
      yield* batcher.forget(agent)
      yield* assertAccount({ pending: 0, discarded: 3 })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(applied.length, 3)
    })
  )

  it.effect("lets an agent that reports again be written again", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, valueHeld } = yield* start({ interval })
      batcher.addUnsafe(agent, facts(1, "old"))
      yield* batcher.forget(agent)
      batcher.addUnsafe(agent, facts(1, "new"))
      yield* batcher.flush
      assert.strictEqual(valueHeld(agent, "key 0"), "new")
      yield* assertAccount({ written: 1, discarded: 1 })
    })
  )

  it.effect("of an agent nobody has heard of, or after the close, does nothing", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, close } = yield* start({ interval })
      yield* batcher.forget(agent)
      yield* close
      yield* batcher.forget(agent)
      yield* assertAccount({ offered: 0, discarded: 0 })
    })
  )

  it.effect("after a close that lost something gives up nothing a second time", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, inject, rule } = yield* start({ interval })
      rule({ refuses: refusesPoison(), tells: "names" })
      yield* batcher.add(agent, [fact("bad", poison("")), fact("good", "")])
      yield* batcher.flush
      inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      yield* batcher.add(agent, facts(5))
      yield* closeInTime
      yield* batcher.forget(agent)
      yield* assertAccount({ written: 1, pending: 0, refused: 0, discarded: 6 })
    })
  )
})
