/** What is kept is bounded in bytes, too: `maxPendingBytes`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as Batcher from "../src/Batcher.ts"
import { agentIdOf, type Fault, fact, poison, refusesPoison, run, start } from "./support/Fakes.ts"
import { collectGarbage } from "./support/Garbage.ts"

const agent = agentIdOf(1)
const interval = 5_000
const down: Fault = { _tag: "Fail", reason: "Unavailable", millis: 0 }

/** A fact that takes so many bytes while it waits. */
const sized = (key: string, bytes: number, at = 0, letter = "v") =>
  fact(key, letter.repeat(bytes / 2 - key.length), at)

describe("maxPendingBytes", () => {
  it.effect("bounds what is kept during an outage, in two bytes per character", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, metrics, valueOf } = yield* start({
        interval,
        maxPendingBytes: 1_000_000
      })
      inject({ write: [down] })
      for (let number = 0; number < 100; number++) {
        const taken = batcher.addUnsafe(agentIdOf(number), [sized("a", 20_000)])
        assert.strictEqual(taken, number < 50 ? 1 : 0)
        if (number % 10 === 0) yield* TestClock.adjust("1 second")
      }
      yield* assertAccount({ pending: 50, dropped: 50 })
      assert.strictEqual((yield* valueOf(metrics.pendingBytes)).value, 1_000_000)
      inject({ write: [] })
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 50, pending: 0 })
      assert.strictEqual((yield* valueOf(metrics.pendingBytes)).value, 0)
    })
  )

  it.effect("counts what is queued, in flight and refused", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, metrics, rule, valueOf, writes } = yield* start({
        interval,
        maxPendingBytes: 4_000
      })
      const bytes = Effect.map(valueOf(metrics.pendingBytes), ({ value }) => value)
      rule({ refuses: refusesPoison(), tells: "names" })
      const bad = poison("v".repeat(300))
      const badBytes = 2 * (1 + bad.length)
      batcher.addUnsafe(agent, [fact("x", bad), sized("good", 100)])
      yield* batcher.flush
      yield* assertAccount({ refused: 1, written: 1 })
      assert.strictEqual(yield* bytes, badBytes)

      const gate = writes.hold()
      batcher.addUnsafe(agent, [sized("in flight", 1_000)])
      yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* writes.ended
      assert.strictEqual(yield* bytes, badBytes + 1_000)
      batcher.addUnsafe(agent, [sized("queued", 2_000)])
      assert.strictEqual(yield* bytes, badBytes + 3_000)
      // Nothing that is refused has to give way for what fits, and then it does.
      assert.strictEqual(batcher.addUnsafe(agent, [sized("more", 200)]), 1)
      yield* assertAccount({ refused: 1 })
      assert.strictEqual(batcher.addUnsafe(agent, [sized("much more", 600)]), 1)
      yield* assertAccount({ refused: 0, discarded: 1, dropped: 0 })
      assert.strictEqual(batcher.addUnsafe(agent, [sized("too much", 400)]), 0)
      yield* gate.open
    })
  )

  it.effect("lets a known key take its newer value at the bound, if that is not larger", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, valueHeld } = yield* start({ interval, maxPendingBytes: 2_000 })
      inject({ write: [down] })
      batcher.addUnsafe(agent, [sized("a", 1_000, 0, "x"), sized("b", 1_000, 0, "x")])
      yield* TestClock.adjust(interval)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("a", 1_000, 1, "y")]), 1)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("b", 1_002, 1, "y")]), 0)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("c", 4, 1, "y")]), 0)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("a", 500, 2, "z")]), 1)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("b", 1_400, 2, "z")]), 1)
      yield* assertAccount({ pending: 2, superseded: 3, dropped: 2 })
      inject({ write: [] })
      yield* TestClock.adjust(2 * interval)
      assert.strictEqual(valueHeld(agent, "a")?.[0], "z")
      assert.strictEqual(valueHeld(agent, "b")?.length, 699)
    })
  )

  it.effect("never drifts, whatever is folded, split, failed, refused, rests and is forgotten", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, inject, metrics, rule, valueOf } = yield* start({
        interval,
        maxBatchSize: 7,
        unchanged: "20 seconds"
      })
      rule({ refuses: refusesPoison() })
      for (let round = 0; round < 60; round++) {
        for (let number = 0; number < 5; number++) {
          const size = (round * 7 + number) % 9
          batcher.addUnsafe(
            agentIdOf(number),
            Array.from({ length: size }, (_, key) =>
              fact(`${key}`, (round + key) % 11 === 0 ? poison("x") : "v".repeat((round * key) % 30), round)
            )
          )
        }
        if (round % 6 === 2) inject({ write: [down] })
        if (round % 6 === 4) inject({ write: [] })
        if (round % 9 === 0) yield* Effect.forkChild(batcher.forget(agentIdOf(2)))
        yield* TestClock.adjust("700 millis")
      }
      rule({})
      inject({ write: [] })
      yield* TestClock.adjust("3 minutes")
      yield* assertAccount({ queued: 0, pending: 0, inFlight: 0, refused: 0 })
      assert.strictEqual((yield* valueOf(metrics.pendingBytes)).value, 0)
    })
  )

  it.effect("follows a refused row, and what comes for it while it is being tried", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, metrics, rule, valueOf, writes } = yield* start({ interval })
      const bytes = Effect.map(valueOf(metrics.pendingBytes), ({ value }) => value)
      const bad = (letters: number, at: number) => fact("x", poison("v".repeat(letters)), at)
      const sizeOf = (letters: number) => 2 * ("x".length + poison("v".repeat(letters)).length)
      rule({ refuses: refusesPoison(), tells: "names" })

      // What comes during the write that is refused waits with the refused row, in its place.
      const first = writes.hold()
      batcher.addUnsafe(agent, [bad(100, 1), sized("good", 100)])
      yield* Effect.forkChild(batcher.flush, { startImmediately: true })
      yield* writes.began
      batcher.addUnsafe(agent, [bad(30, 2)])
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* bytes, sizeOf(100) + 100 + sizeOf(30))
      yield* first.open
      yield* TestClock.adjust(0)
      yield* assertAccount({ refused: 1, pending: 0, inFlight: 0 })
      assert.strictEqual(yield* bytes, sizeOf(30))

      // What comes while it is being tried waits beside it, and as any other once it has been written.
      const second = writes.hold()
      yield* TestClock.adjust("1 second")
      batcher.addUnsafe(agent, [bad(70, 3)])
      yield* TestClock.adjust(0)
      yield* assertAccount({ refused: 1, inFlight: 1 })
      assert.strictEqual(yield* bytes, sizeOf(30) + sizeOf(70))
      rule({})
      yield* second.open
      yield* TestClock.adjust(0)
      yield* assertAccount({ refused: 0, inFlight: 0, pending: 1 })
      assert.strictEqual(yield* bytes, sizeOf(70))
      yield* TestClock.adjust(2 * interval)
      assert.strictEqual(held.size, 2)
      assert.strictEqual(yield* bytes, 0)
    })
  )

  it.effect("follows what rests, and what takes its place in part", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, metrics, valueOf } = yield* start({ interval, unchanged: "20 seconds" })
      // It subscribes first: what others may have written before is not known.
      yield* TestClock.adjust(0)
      const bytes = Effect.map(valueOf(metrics.pendingBytes), ({ value }) => value)
      const report = (at: number, ofB: number) =>
        batcher.addUnsafe(agent, [sized("a", 100, at), sized("b", ofB, at), sized("c", 300, at)])
      report(1, 200)
      yield* batcher.flush
      assert.strictEqual(yield* bytes, 0)
      report(2, 200)
      yield* batcher.flush
      yield* assertAccount({ written: 3, pending: 3 })
      assert.strictEqual(yield* bytes, 600)
      // One of the three is news: it leaves what rests, and is written.
      report(3, 500)
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* bytes, 900)
      yield* batcher.flush
      yield* assertAccount({ written: 4, pending: 2 })
      assert.strictEqual(yield* bytes, 400)
      report(4, 500)
      yield* batcher.flush
      yield* assertAccount({ written: 4, pending: 3 })
      assert.strictEqual(yield* bytes, 900)
      // The one that was written later is woken later.
      yield* TestClock.adjust("1 minute")
      yield* assertAccount({ written: 7, pending: 0 })
      assert.strictEqual(yield* bytes, 0)
    })
  )

  it.effect("bounds what is only ever appended: the oldest give way, and nothing drifts", () =>
    Effect.gen(function* () {
      let isDown = true
      let refuses = true
      const write = (records: ReadonlyArray<string>): Effect.Effect<void, unknown> =>
        isDown
          ? Effect.fail({ reason: { _tag: "Unavailable" } })
          : refuses && records.some((record) => record.startsWith("bad"))
            ? Effect.fail(new Error("no"))
            : Effect.void
      const { assertAccount, batcher, metrics, valueOf } = yield* run(
        "log",
        Batcher.make<string>({
          name: "Log",
          options: { interval: "1 second", maxPendingBytes: 1_000, maxBatchSize: 5 },
          accumulate: Batcher.appendOnly(),
          write: (records) => Effect.suspend(() => write(records))
        })
      )
      const bytes = Effect.map(valueOf(metrics.pendingBytes), ({ value }) => value)
      // A hundred bytes each.
      for (let number = 0; number < 30; number++) {
        batcher.addUnsafe((number % 7 === 3 ? "bad" : "good").padEnd(50, "x"))
        yield* TestClock.adjust("300 millis")
        assert.isAtMost(yield* bytes, 1_000)
      }
      yield* assertAccount({ discarded: 20, pending: 10 })
      assert.strictEqual(yield* bytes, 1_000)
      isDown = false
      yield* TestClock.adjust("10 seconds")
      const { refused } = yield* batcher.accounting
      assert.isAbove(refused, 0)
      assert.strictEqual(yield* bytes, 100 * refused)
      // Refused ones give way first.
      isDown = true
      for (let number = 0; number < 10; number++) batcher.addUnsafe("good".padEnd(50, "x"))
      yield* assertAccount({ refused: 0, discarded: 20 + refused })
      assert.strictEqual(yield* bytes, 1_000)
      batcher.addUnsafe("bad".padEnd(50, "x"))
      isDown = false
      yield* TestClock.adjust("10 seconds")
      yield* assertAccount({ refused: 1 })
      assert.strictEqual(yield* bytes, 100)
      refuses = false
      yield* TestClock.adjust("2 minutes")
      yield* assertAccount({ pending: 0, refused: 0 })
      assert.strictEqual(yield* bytes, 0)
    })
  )

  it.effect("holds whatever a record says of itself later", () =>
    Effect.gen(function* () {
      const { batcher } = yield* start({ maxPendingBytes: 1_000 })
      let reads = 0
      const odd = {
        ...fact("odd", ""),
        get value(): string {
          return reads++ === 0 ? "a text" : (undefined as unknown as string)
        }
      }
      yield* batcher.add(agent, [fact("cpu", "")])
      yield* TestClock.adjust(0)
      yield* batcher.add(agent, [odd])
      yield* TestClock.adjust(0)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("large", 2_000)]), 0)
      assert.strictEqual(batcher.addUnsafe(agent, [sized("small", 20)]), 1)
    })
  )

  it.effect("is not undermined by a refused row: the rest of its report is not kept", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, rule } = yield* start()
      rule({ refuses: refusesPoison(), tells: "names" })
      const rest = new WeakRef(fact("large", "x".repeat(10_000)))
      batcher.addUnsafe(agent, [fact("bad", poison("")), rest.deref() ?? fact("", "")])
      yield* batcher.flush
      yield* assertAccount({ refused: 1, written: 1 })
      yield* collectGarbage
      assert.isUndefined(rest.deref())
    })
  )
})
