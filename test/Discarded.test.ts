/** `onDiscarded` is given what is given up, with why, and is never in the way. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import type * as MetadataBatcher from "../src/MetadataBatcher.ts"
import {
  agentIdOf,
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

/** A batcher that keeps what it is given, in the batches in which it was. */
const startKeeping = Effect.fnUntraced(function* (
  options?: MetadataBatcher.Options,
  answer: Effect.Effect<void> = Effect.void
) {
  const batches: Array<ReadonlyArray<MetadataBatcher.DiscardedFact>> = []
  const started = yield* start({
    interval,
    ...options,
    onDiscarded: (discarded) =>
      Effect.andThen(
        Effect.sync(() => void batches.push(discarded)),
        answer
      )
  })
  return { ...started, batches }
})

describe("onDiscarded is given", () => {
  it.effect("what was refused for an hour, with what the store said", () =>
    Effect.gen(function* () {
      const { batches, batcher, rule } = yield* startKeeping()
      rule({ refuses: refusesPoison("SQLSTATE 23514"), tells: "names" })
      const bad = fact("bad", poison("x"), 5)
      batcher.addUnsafe(agent, [bad, ...facts(2)])
      yield* TestClock.adjust("70 minutes")
      // Alone it is refused by a statement that fails.
      const why = "the store rejected the batch: SQLSTATE 23514"
      assert.deepStrictEqual(batches, [[{ agentId: agent, fact: bad, reason: "refused", why }]])
    })
  )

  it.effect("what was evicted because room was short", () =>
    Effect.gen(function* () {
      const { batches, batcher, rule } = yield* startKeeping({ maxBatchSize: 2, maxPending: 2 })
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agent, [fact("bad", poison("x")), fact("good", "")])
      yield* batcher.flush
      batcher.addUnsafe(other, facts(2))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        batches.flat().map(({ agentId, fact, reason }) => [agentId, fact.key, reason]),
        [[agent, "bad", "evicted"]]
      )
    })
  )

  it.effect("what had no row to be updated", () =>
    Effect.gen(function* () {
      const { batches, batcher, writes } = yield* startKeeping()
      writes.answer(Effect.succeed({ changed: 1, superseded: [], missing: [1], refused: [] }))
      batcher.addUnsafe(agent, facts(2))
      yield* batcher.flush
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        batches.flat().map(({ fact, reason }) => [fact.key, reason]),
        [["key 1", "missing"]]
      )
    })
  )

  it.effect('what a failed write cost with onWriteFailure "discard"', () =>
    Effect.gen(function* () {
      const { batches, batcher, inject } = yield* startKeeping({ onWriteFailure: "discard" })
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(2))
      yield* batcher.flush
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        batches.flat().map(({ fact, reason, why }) => [fact.key, reason, why]),
        [
          ["key 0", "failed", "the store is unavailable: down"],
          ["key 1", "failed", "the store is unavailable: down"]
        ]
      )
    })
  )

  it.effect("what is unwritten at the close, refused rows too, in batches of at most 500", () =>
    Effect.gen(function* () {
      const { assertAccount, batches, batcher, closeInTime, inject, rule } = yield* startKeeping({
        maxBatchSize: 1_000
      })
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agent, [fact("bad", poison("x")), ...facts(1)])
      yield* batcher.flush
      inject({ write: [down] })
      for (let number = 2; number < 122; number++) batcher.addUnsafe(agentIdOf(number), facts(10))
      yield* closeInTime
      yield* assertAccount({ discarded: 1_201 })
      assert.deepStrictEqual(
        batches.map(({ length }) => length),
        [500, 500, 201]
      )
      const reasons = batches.flat().map(({ reason }) => reason)
      assert.strictEqual(reasons.filter((reason) => reason === "unwritten").length, 1_200)
      assert.strictEqual(reasons.filter((reason) => reason === "refused").length, 1)
    })
  )

  it.effect("not what is forgotten, superseded or dropped", () =>
    Effect.gen(function* () {
      const { batches, batcher, rule } = yield* startKeeping()
      rule({ refuses: refusesPoison(), tells: "names" })
      batcher.addUnsafe(agent, [fact("bad", poison("x"))])
      batcher.addUnsafe(agentIdOf(2), facts(1))
      yield* batcher.flush
      batcher.addUnsafe(agent, facts(2))
      batcher.addUnsafe(agent, facts(2, "newer", 1))
      batcher.addUnsafe(agent, [undefined as never])
      yield* batcher.forget(agent)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(batches, [])
    })
  )
})

describe("An onDiscarded", () => {
  for (const [what, answer] of [
    ["that hangs", Effect.never],
    ["that hangs and cannot be interrupted", Effect.uninterruptible(Effect.never)],
    ["that dies", Effect.die(new Error("a bug"))]
  ] as const) {
    it.effect(`${what} holds up neither writes nor the close`, () =>
      Effect.gen(function* () {
        const { assertAccount, batcher, closeInTime, inject } = yield* startKeeping(
          { onWriteFailure: "discard", maxBatchSize: 10 },
          answer
        )
        inject({ write: [down, { _tag: "Delay", millis: 0 }] })
        for (let round = 0; round < 10; round++) {
          batcher.addUnsafe(agentIdOf(round), facts(5))
          yield* TestClock.adjust(interval)
        }
        yield* assertAccount({ written: 25, discarded: 25, pending: 0 })
        assert.isAtMost((yield* closeInTime).took, 15_000)
      })
    )
  }

  it.effect("that is under way at the close is awaited", () =>
    Effect.gen(function* () {
      let given = 0
      const { batcher, closeInTime, inject } = yield* start({
        onWriteFailure: "discard",
        onDiscarded: (discarded) =>
          Effect.map(Effect.sleep(2_000), () => {
            given += discarded.length
          })
      })
      inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      yield* batcher.add(agentIdOf(1), facts(5))
      yield* batcher.flush
      yield* TestClock.adjust("1 second")
      const { took } = yield* closeInTime
      assert.deepStrictEqual([given, took], [5, 1_000])
    })
  )

  it.effect("that is too slow is not given the oldest, and a warning says how many", () =>
    Effect.gen(function* () {
      let isSlow = true
      const { batches, batcher, inject, logs } = yield* startKeeping(
        { onWriteFailure: "discard", maxBatchSize: 500, maxPending: 500, writeTimeout: 0 },
        Effect.suspend(() => (isSlow ? Effect.sleep("10 minutes") : Effect.void))
      )
      inject({ write: [down] })
      for (let round = 0; round < 5; round++) {
        for (let number = 0; number < 50; number++)
          batcher.addUnsafe(agentIdOf(number), facts(10, `${round}`))
        yield* batcher.flush
      }
      isSlow = false
      yield* TestClock.adjust("20 minutes")
      const line = warnings(logs.lines).find(({ message }) => message.includes("onDiscarded"))
      assert.match(line?.message ?? "", /^onDiscarded is too slow: it was not given \d+ records$/)
      // The first batch was on its way; what was left out is older than what was given at last.
      assert.strictEqual(batches.at(-1)?.at(-1)?.fact.value, "4")
      assert.strictEqual(batches.flat().length + Number(line?.annotations["count"]), 2_500)
    })
  )

  it.effect("is left out of nothing when there is none", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject } = yield* start({ interval, onWriteFailure: "discard" })
      inject({ write: [down] })
      batcher.addUnsafe(agent, facts(5))
      yield* batcher.flush
      yield* assertAccount({ discarded: 5 })
    })
  )
})
