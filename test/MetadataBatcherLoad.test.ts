/** What a batcher must still do when there is much of everything: rows, batches, keys of one agent, and bad ones. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as Logger from "effect/Logger"
import type * as Batcher from "../src/Batcher.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf, assertAddsUp, fact, facts, refusing, start } from "./support/Fakes.ts"
import { collectGarbage } from "./support/Garbage.ts"

const [agentA, agentB] = [agentIdOf(1), agentIdOf(2)]

/** A batcher over stores in memory, which answer at once, on the stack of whoever asks. */
const startInMemory = Effect.fnUntraced(function* (options: MetadataBatcher.Options) {
  const { store } = yield* Store.makeMemory
  return yield* MetadataBatcher.make(options).pipe(
    Effect.provideService(Store.Store, store),
    Effect.provide(Pubsub.layerMemory)
  )
})

/** Waits for an account of which this is true. */
const accountOf = (
  batcher: MetadataBatcher.MetadataBatcher["Service"],
  condition: (account: Batcher.Accounting) => boolean
) => Effect.yieldNow.pipe(Effect.andThen(batcher.accounting), Effect.repeat({ until: condition }))

describe("MetadataBatcher under load", () => {
  it.effect("writes any number of batches, one right after the other", () =>
    Effect.gen(function* () {
      const batcher = yield* startInMemory({ maxBatchSize: 1, capacity: 10_000 })
      assert.strictEqual(batcher.addUnsafe(agentA, facts(10_000)), 10_000)
      yield* accountOf(batcher, ({ written }) => written === 10_000)
      batcher.addUnsafe(agentA, facts(1))
      yield* accountOf(batcher, ({ written }) => written === 10_001)
    })
  )

  it.effect("a flush returns while more is added and written", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* start({ maxBatchSize: 2 })
      let isBusy = true
      // The next batch is there before this one is written.
      writes.answerAll(() =>
        Effect.suspend(() => {
          if (!isBusy) return Effect.void
          batcher.addUnsafe(agentA, facts(2))
          return accountOf(batcher, ({ pending }) => pending >= 2)
        })
      )
      batcher.addUnsafe(agentA, facts(2))
      yield* writes.began
      yield* batcher.flush
      isBusy = false
      yield* until(({ inFlight, pending, queued }) => queued + pending + inFlight === 0)
    })
  )

  it.effect("an agent that reports without end lets the others have their turn", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start({ maxBatchSize: 2 })
      let keys = 0
      const addNoise = (count: number) =>
        Effect.suspend(() => {
          if (keys >= 400) return Effect.void
          batcher.addUnsafe(
            agentA,
            Array.from({ length: count }, () => fact(`key ${keys++}`, ""))
          )
          return accountOf(batcher, ({ queued }) => queued === 0)
        })
      const gate = writes.hold()
      yield* addNoise(2)
      yield* writes.began
      yield* addNoise(4)
      batcher.addUnsafe(agentB, [fact("quiet", "")])
      yield* accountOf(batcher, ({ pending }) => pending === 5)
      writes.answerAll(() => addNoise(2))
      yield* gate.open
      yield* accountOf(batcher, ({ inFlight, pending }) => pending + inFlight <= 1)
      // After those that were in the write, and the four that came before it.
      assert.strictEqual(
        writes.calls.findIndex(({ keys }) => keys.includes("quiet")),
        3
      )
    })
  )

  it.effect(
    "closes without a pause while the store answers, however long the search for bad rows takes",
    () =>
      Effect.gen(function* () {
        const { batcher, close, writes } = yield* start({ maxBatchSize: 500 })
        writes.answerAll(({ values }) =>
          values.includes("bad") ? Effect.fail(Store.rejected(new Error("invalid"))) : Effect.void
        )
        for (let agent = 0; agent < 40; agent++) {
          yield* batcher.add(
            agentIdOf(agent),
            facts(10).map(({ key }, i) => fact(key, i % 2 === 0 ? "bad" : "good"))
          )
        }
        // Nobody moves the clock: a pause would last for ever.
        yield* close
        const account = yield* batcher.accounting
        yield* assertAddsUp(account)
        assert.deepInclude(account, { written: 200, discarded: 200 })
      })
  )

  it.effect("a row that waits keeps nothing of the rest of its report", () =>
    Effect.gen(function* () {
      const { batcher, until } = yield* start()
      const add = (...reported: ReadonlyArray<ReturnType<typeof fact>>) =>
        Effect.sync(() => {
          batcher.addUnsafe(agentA, reported)
          return new WeakRef(reported[0] ?? {})
        })
      const replaced = yield* add(fact("often", "old"), fact("seldom", ""))
      yield* add(fact("often", "new", 1))
      yield* until(({ pending, superseded }) => pending === 2 && superseded === 1)
      yield* collectGarbage
      assert.isUndefined(replaced.deref())
    })
  )

  it.effect("a key that is none and is refused costs nobody else anything", () =>
    Effect.gen(function* () {
      const { batcher, publishes, until, writes } = yield* start()
      const odd = { toString: 1 } as never
      writes.answerAll(({ keys }) => {
        const at = keys.indexOf(odd)
        return at === 0
          ? Effect.fail(Store.rejected(new Error("not a text")))
          : Effect.succeed(refusing(keys.length, at < 0 ? [] : [at]))
      })
      for (const round of [1, 2, 3]) {
        yield* batcher.add(agentB, facts(2, "", round))
        yield* batcher.add(agentA, [fact(odd, "")])
        yield* batcher.flush
        yield* until(({ discarded, written }) => written === 2 * round && discarded === round)
        assert.strictEqual(publishes.calls.length, round)
      }
    })
  )

  it.effect("errors that cause each other are an outage as any", () =>
    Effect.gen(function* () {
      const { batcher, logs, writes } = yield* start()
      const [one, other] = [new Error("one"), new Error("other")]
      one.cause = other
      other.cause = one
      writes.answer(Effect.fail(Store.unavailable(one)))
      yield* batcher.add(agentA, facts(1))
      yield* batcher.flush
      assert.include((yield* logs.next("Warn")).message, "store unavailable")
      yield* batcher.flush
      assert.deepInclude(yield* batcher.accounting, { written: 1, pending: 0 })
    })
  )

  it.effect("what is no report costs nobody else anything", () =>
    Effect.gen(function* () {
      const { batcher, until } = yield* start()
      const lengths = [Number.NaN, 1e9, -1, "5", Number.POSITIVE_INFINITY]
      for (const length of lengths) assert.strictEqual(batcher.addUnsafe(agentA, { length } as never), 0)
      assert.deepInclude(yield* batcher.accounting, { offered: 0, queued: 0 })
      const id = {
        get [Hash.symbol](): never {
          throw new Error("no id")
        }
      }
      batcher.addUnsafe(id as never, facts(2))
      batcher.addUnsafe(agentA, facts(3))
      yield* until(({ queued }) => queued === 0)
      yield* batcher.flush
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { offered: 5, written: 3, discarded: 2 })
    })
  )

  it.effect("a logger that throws ends nothing", () =>
    Effect.gen(function* () {
      let logged = 0
      const throwing = Logger.make(() => {
        logged += 1
        throw new Error("disk full")
      })
      const batcher = yield* Effect.provide(
        startInMemory({ maxBatchSize: 2, capacity: 10, maxPending: 2 }),
        Logger.layer([throwing])
      )
      // More than the queue holds, and more than may be pending.
      batcher.addUnsafe(agentA, facts(20))
      yield* accountOf(batcher, ({ queued }) => queued === 0)
      assert.isAtLeast(logged, 1)
      // Nobody moves the clock: this is written at capacity or not at all.
      batcher.addUnsafe(agentB, facts(2))
      yield* accountOf(batcher, ({ pending, queued }) => queued === 0 && pending === 0)
      yield* assertAddsUp(yield* batcher.accounting)
    })
  )
})
