/** Whoever adds never waits and never fails, a burst loses nothing, and what is no fact costs only itself. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import type { Metadata } from "../src/Metadata.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf, assertAddsUp, fact, facts, refusing, rowsOf, start } from "./support/Fakes.ts"
import { collectGarbage } from "./support/Garbage.ts"

const [agentA, agentB, agentC] = [agentIdOf(1), agentIdOf(2), agentIdOf(3)]

const range = (count: number) => Array.from({ length: count }, (_, i) => i)

describe("A burst within one turn of the event loop", () => {
  type Batcher = Effect.Success<ReturnType<typeof start>>["batcher"]
  const bursts: ReadonlyArray<readonly [string, number, (batcher: Batcher) => Effect.Effect<unknown>]> = [
    [
      "1,000 agents × 10 facts by addUnsafe",
      10_000,
      (batcher) =>
        Effect.sync(() => {
          for (let agent = 0; agent < 1_000; agent++) {
            assert.strictEqual(batcher.addUnsafe(agentIdOf(agent), facts(10)), 10)
          }
        })
    ],
    [
      "1,000 agents × 10 facts by Effect.forEach",
      10_000,
      (batcher) => Effect.forEach(range(1_000), (agent) => batcher.add(agentIdOf(agent), facts(10)))
    ],
    [
      "20 fibers × 500 reports",
      20_000,
      (batcher) =>
        Effect.forEach(
          range(20),
          (producer) =>
            Effect.forEach(range(500), (report) => batcher.add(agentIdOf(500 * producer + report), facts(2))),
          { concurrency: "unbounded" }
        )
    ]
  ]
  it.effect.each(bursts)("loses nothing: %s", ([, offered, burst]) =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held } = yield* start()
      yield* burst(batcher)
      yield* batcher.flush
      yield* assertAccount({ offered, dropped: 0, written: offered })
      assert.strictEqual(held.size, offered)
    })
  )

  it.effect("of 20,000 updates of one key ends with the newest", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, valueHeld } = yield* start()
      for (let update = 0; update < 20_000; update++) {
        assert.strictEqual(batcher.addUnsafe(agentA, [fact("cpu", `v${update}`)]), 1)
      }
      yield* batcher.flush
      yield* assertAccount({ offered: 20_000, dropped: 0, superseded: 19_999, written: 1 })
      assert.strictEqual(valueHeld(agentA, "cpu"), "v19999")
    })
  )

  it.effect("keeps the order in which equally old facts were added, whoever folds the queue", () =>
    Effect.gen(function* () {
      const { batcher, valueHeld } = yield* start({ maxBatchSize: 2, capacity: 2 })
      for (let update = 0; update < 7; update++) batcher.addUnsafe(agentA, [fact("cpu", `${update}`)])
      yield* batcher.flush
      assert.strictEqual(valueHeld(agentA, "cpu"), "6")
    })
  )

  it.effect("that is one report larger than the queue is taken as well", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, writes } = yield* start({ maxBatchSize: 2, capacity: 4 })
      assert.strictEqual(batcher.addUnsafe(agentA, facts(3)), 3)
      assert.strictEqual(batcher.addUnsafe(agentB, facts(9)), 9)
      assert.strictEqual(batcher.addUnsafe(agentB, []), 0)
      yield* assertAccount({ offered: 12, dropped: 0 })
      yield* batcher.flush
      assert.strictEqual(writes.succeeded.flatMap(rowsOf).length, 12)
    })
  )
})

describe("No more room", () => {
  it.effect("at maxPending keys that are held still take newer values, new ones are dropped", () =>
    Effect.gen(function* () {
      const started = yield* start({ maxBatchSize: 2, maxPending: 4 })
      const { assertAccount, batcher, logs, writes } = started
      const gate = writes.hold()
      yield* batcher.add(agentA, facts(2))
      yield* writes.began
      yield* batcher.add(agentB, facts(2, "old", 0))
      assert.strictEqual(batcher.addUnsafe(agentB, facts(5, "new", 1)), 4)
      assert.strictEqual(batcher.addUnsafe(agentC, facts(1)), 0)
      // What is in flight comes on top.
      yield* assertAccount({ inFlight: 2, pending: 4, superseded: 2, dropped: 2 })
      assert.deepInclude((yield* logs.next("Warn")).annotations, { maxPending: 4 })
      yield* gate.open
      yield* batcher.flush
      assert.deepStrictEqual(
        writes.calls.slice(1).flatMap(rowsOf),
        [0, 1, 2, 3].map((key) => [agentB, `key ${key}`, "new", 1] as const)
      )
      assert.strictEqual((yield* started.valueOf(started.metrics.dropped)).count, 2)
    })
  )

  it.effect("a key that is in flight takes its newer value", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, held, writes } = yield* start({ maxBatchSize: 100, maxPending: 1_000 })
      const gate = writes.hold()
      for (let agent = 0; agent < 100; agent++) batcher.addUnsafe(agentIdOf(agent), facts(10, "old", 1))
      yield* writes.began
      for (let agent = 0; agent < 100; agent++) {
        assert.strictEqual(batcher.addUnsafe(agentIdOf(agent), facts(10, "new", 2)), 10)
      }
      // The bound holds for keys; what is in flight and waits again counts twice.
      yield* assertAccount({ dropped: 0, pending: 1_000, inFlight: 100 })
      assert.strictEqual(batcher.addUnsafe(agentIdOf(1_000), facts(1)), 0)
      yield* gate.open
      yield* batcher.flush
      assert.strictEqual(held.size, 1_000)
      for (const { value } of held.values()) assert.strictEqual(value, "new")
    })
  )

  it.effect("is warned about at most every 10 s, with the agent and the count since the last time", () =>
    Effect.gen(function* () {
      const { batcher, logs, writes } = yield* start({ maxBatchSize: 2, maxPending: 2 })
      const gate = writes.hold()
      batcher.addUnsafe(agentA, facts(2))
      yield* writes.began
      batcher.addUnsafe(agentC, facts(2))
      const drop = (count: number) =>
        Effect.gen(function* () {
          assert.strictEqual(batcher.addUnsafe(agentB, facts(count)), 0)
          yield* TestClock.adjust(0)
        })
      yield* drop(1)
      const first = yield* logs.next("Warn")
      assert.strictEqual(first.message, "dropped 1: no room")
      assert.deepInclude(first.annotations, { agent: agentB, maxPending: 2, count: 1 })
      yield* TestClock.adjust("1 second")
      yield* drop(2)
      yield* TestClock.adjust("8999 millis")
      yield* drop(3)
      yield* TestClock.adjust("1 millis")
      yield* drop(4)
      const second = yield* logs.next("Warn")
      assert.strictEqual(second.message, "dropped 9: no room")
      const debug = logs.lines.filter((line) => line.level === "Debug" && line.message.includes("dropped"))
      assert.deepStrictEqual(
        debug.map(({ annotations }) => annotations["count"]),
        [2, 3]
      )
      yield* gate.open
    })
  )
})

describe("What is no fact", () => {
  const none = undefined as unknown as Metadata
  const throwing = (property: keyof Metadata): Metadata =>
    Object.defineProperty({ ...fact("cpu", "bad") }, property, {
      enumerable: true,
      get: () => {
        throw new Error("a getter that throws")
      }
    })
  const proxy: Metadata = new Proxy(fact("cpu", "bad"), {
    get: () => {
      throw new Error("a proxy that throws")
    }
  })
  const cases: ReadonlyArray<readonly [name: string, bad: Metadata]> = [
    ["undefined", none],
    ["null", null as unknown as Metadata],
    ["without a time", { key: "cpu", value: "", error: "" } as unknown as Metadata],
    ["a time that is text", { ...fact("cpu", "bad"), collectedAt: "now" as never }],
    [
      "a time that is NaN",
      { ...fact("cpu", "bad"), collectedAt: { epochMilliseconds: Number.NaN } as never }
    ],
    ["a key that is an object", fact({ toString: 1 } as never, "bad")],
    ["a value that is a number", fact("cpu", 7 as never)],
    ["a key longer than any store takes", fact("k".repeat(128), "bad")],
    ["a value longer than any store takes", fact("cpu", "v".repeat(65_536))],
    ["a key whose getter throws", throwing("key")],
    ["a value whose getter throws", throwing("value")],
    ["a time whose getter throws", throwing("collectedAt")],
    ["a proxy that throws", proxy]
  ]

  it.effect.each(cases)("costs only itself, is counted as dropped and told: %s", ([, bad]) =>
    Effect.gen(function* () {
      const { assertAccount, batcher, logs, writes } = yield* start()
      assert.strictEqual(batcher.addUnsafe(agentA, [fact("cpu", "7 %"), bad, fact("disk", "80 %")]), 2)
      assert.strictEqual(batcher.addUnsafe(agentA, [bad]), 0)
      yield* batcher.add(agentA, [bad])
      yield* batcher.add(agentB, facts(1))
      yield* batcher.flush
      assert.deepStrictEqual(writes.succeeded.flatMap(rowsOf), [
        [agentA, "cpu", "7 %", 0],
        [agentA, "disk", "80 %", 0],
        [agentB, "key 0", "", 0]
      ])
      yield* assertAccount({ offered: 6, written: 3, dropped: 3, queued: 0, pending: 0, inFlight: 0 })
      const { annotations, message } = yield* logs.next("Warn")
      assert.match(message, /^dropped \d: not what they should be$/)
      assert.strictEqual(annotations["agent"], agentA)
    })
  )

  /** A fact that reads well so many times, and then throws. */
  const throwingAfter = (reads: number): Metadata => {
    let left = reads
    return new Proxy(fact("cpu", "odd", 1), {
      get: (target, property, receiver) => {
        if (left-- <= 0) throw new Error("no more")
        return Reflect.get(target, property, receiver)
      }
    })
  }

  const looks = range(40).flatMap((reads) => [
    [reads, "of an agent like no other"] as const,
    [reads, "of an agent that lists what others list"] as const
  ])

  it.effect.each(looks)("costs only itself though it throws at the %i. look, %s", ([reads, of]) =>
    Effect.gen(function* () {
      const started = yield* start({ maxBatchSize: 4 })
      const { batcher, close, writes } = started
      writes.answer(Effect.void)
      if (of === "of an agent that lists what others list") {
        yield* batcher.add(agentB, [fact("disk", "10 %"), fact("cpu", "plain")])
        yield* batcher.flush
      }
      yield* batcher.add(agentA, [fact("cpu", "plain")])
      yield* batcher.add(agentA, [fact("disk", "80 %"), throwingAfter(reads)])
      yield* batcher.add(agentA, [fact("cpu", "plain"), fact("ram", "1 GB")])
      yield* batcher.add(agentB, facts(2))
      yield* TestClock.adjust("30 seconds")
      // At the latest when the batch's columns are built it fails, alone.
      yield* assertAddsUp(yield* batcher.accounting)
      yield* batcher.add(agentC, facts(2))
      yield* TestClock.adjust("30 seconds")
      const found = new Set(Array.from(started.held.values(), ({ agentId, key }) => `${agentId} ${key}`))
      for (const key of [`${agentA} disk`, `${agentA} ram`, `${agentB} key 1`, `${agentC} key 1`]) {
        assert.isTrue(found.has(key), key)
      }
      yield* started.assertAccount({ queued: 0, pending: 0, inFlight: 0 })
      yield* close
      yield* started.assertAccount({ queued: 0, pending: 0, inFlight: 0, refused: 0 })
    })
  )

  it.effect("as a whole report neither throws nor ends anything", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      const lengths = [Number.NaN, 1e9, -1, "5", Number.POSITIVE_INFINITY]
      for (const length of lengths) assert.strictEqual(batcher.addUnsafe(agentA, { length } as never), 0)
      yield* batcher.add(agentA, undefined as unknown as ReadonlyArray<Metadata>)
      yield* batcher.add(agentB, facts(1))
      yield* batcher.flush
      yield* assertAddsUp(yield* batcher.accounting)
      assert.deepInclude(yield* batcher.accounting, { offered: 1, written: 1 })
      assert.deepStrictEqual(writes.succeeded.flatMap(rowsOf), [[agentB, "key 0", "", 0]])
    })
  )

  it.effect.each([Number.NaN, -1, 0.5, "5", 1e9, Number.POSITIVE_INFINITY, 1, "throws", "throws later"])(
    "from an array that says its length is %s leaves the account exact",
    (length) =>
      Effect.gen(function* () {
        const { batcher } = yield* start({ maxBatchSize: 10, maxPending: 10 })
        let looks = 0
        const lying = new Proxy([...facts(3)], {
          get: (target, property, receiver) => {
            if (property !== "length") return Reflect.get(target, property, receiver)
            looks += 1
            if (length === "throws later" && looks === 1) return 3
            if (typeof length === "string" && length !== "5") throw new Error("no length")
            return length
          }
        })
        batcher.addUnsafe(agentA, lying)
        yield* batcher.add(agentB, facts(2))
        yield* batcher.flush
        const account = yield* batcher.accounting
        yield* assertAddsUp(account)
        for (const count of Object.values(account)) assert.isTrue(Number.isSafeInteger(count))
        assert.isAtLeast(account.written, 2)
        assert.deepInclude(account, { pending: 0, inFlight: 0, queued: 0 })
      })
  )

  it.effect("as an agent's id costs nobody else anything", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher } = yield* start()
      const id = {
        get [Hash.symbol](): never {
          throw new Error("no id")
        }
      }
      assert.strictEqual(batcher.addUnsafe(id as never, facts(2)), 0)
      assert.strictEqual(batcher.addUnsafe(undefined as never, facts(2)), 0)
      // What cannot be made a text.
      for (const odd of [Object.create(null), Symbol("id"), { toString: 1 }]) {
        assert.strictEqual(batcher.addUnsafe(odd as never, facts(1)), 0)
        assert.strictEqual(batcher.addUnsafe(odd as never, []), 0)
      }
      batcher.addUnsafe(agentA, facts(3))
      yield* batcher.flush
      yield* assertAccount({ offered: 10, written: 3, dropped: 7 })
    })
  )
})

describe("Whoever adds", () => {
  it.effect("runs nothing of the store, the pubsub, a logger or onDiscarded", () =>
    Effect.gen(function* () {
      let isAdding = false
      const ran: Array<string> = []
      const note = (what: string) =>
        Effect.sync(() => {
          if (isAdding) ran.push(what)
        })
      const { store } = yield* Store.makeMemory
      const { pubsub } = yield* Pubsub.makeMemory
      let writes = 0
      const batcher = yield* MetadataBatcher.make({
        maxBatchSize: 2,
        maxPending: 4,
        onDiscarded: () => note("onDiscarded")
      }).pipe(
        Effect.provideService(Store.Store, {
          ...store,
          batchUpdateMetadata: (batch) =>
            Effect.andThen(
              note("store"),
              writes++ % 3 === 0
                ? Effect.succeed(refusing(batch.keys.length, [0]))
                : store.batchUpdateMetadata(batch)
            )
        }),
        Effect.provideService(Pubsub.Pubsub, {
          ...pubsub,
          publish: (channel, payloads) => Effect.andThen(note("pubsub"), pubsub.publish(channel, payloads))
        }),
        Effect.provide(Logger.layer([Logger.make(() => void (isAdding && ran.push("logger")))]))
      )
      for (let turn = 0; turn < 20; turn++) {
        for (let one = 0; one < turn % 5; one++) {
          isAdding = true
          batcher.addUnsafe(agentIdOf(turn * 5 + one), [fact("a", ""), fact("b", ""), undefined as never])
          isAdding = false
        }
        yield* TestClock.adjust(turn % 3 === 0 ? "1 second" : 0)
      }
      assert.isAbove(writes, 5)
      assert.deepStrictEqual(ran, [])
    })
  )
})

describe("What waits", () => {
  it.effect("keeps nothing of the rest of its report", () =>
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
})
