/**
 * The batcher against a model: a plain fold that keeps the newest fact of each
 * agent and key. Whatever is added, however time passes and whatever is flushed
 * in between, the account adds up at every step and the store ends up with what
 * the model holds.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import type { MetadataBatch } from "../src/Metadata.ts"
import type * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, assertAddsUp, fact, type Started, start, startStats } from "./support/Fakes.ts"

const below = (bound: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: bound - 1 }))

// Few agents, keys and times, so that they meet often.
const Report = Schema.Struct({
  agent: below(4),
  facts: Schema.Array(Schema.Struct({ key: below(4), at: below(6) })).check(Schema.isMaxLength(8))
})

const Step = Schema.Union([
  Schema.TaggedStruct("Add", { report: Report }),
  Schema.TaggedStruct("AddUnsafe", { report: Report }),
  Schema.TaggedStruct("Wait", { millis: below(3000) }),
  Schema.TaggedStruct("Flush", {}),
  Schema.TaggedStruct("Yield", {})
])

const Plan = Schema.Struct({
  steps: Schema.Array(Step).check(Schema.isMaxLength(60)),
  maxBatchSize: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 8 })),
  writeConcurrency: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })),
  /** How long each write takes; 0 is at once. */
  writeMillis: Schema.Array(below(700)).check(Schema.isMaxLength(10))
})
type Plan = typeof Plan.Type

/** Newest wins, the later one of equals: what the batcher, the store and the two together must come to. */
const makeNewest = () => {
  const newest = new Map<string, readonly [at: number, value: string]>()
  return {
    newest,
    put: (agent: string, key: string, at: number, value: string) => {
      const held = newest.get(`${agent} ${key}`)
      if (held === undefined || at >= held[0]) newest.set(`${agent} ${key}`, [at, value])
    }
  }
}

const run = Effect.fnUntraced(function* (plan: Plan, started: Started) {
  const { batcher, writes } = started
  const model = makeNewest()
  let serial = 0

  const add = (report: typeof Report.Type, by: "Add" | "AddUnsafe") =>
    Effect.gen(function* () {
      const agentId = agentIdOf(report.agent)
      const facts = report.facts.map(({ at, key }) => fact(`${key}`, `${serial++}`, at))
      const before = yield* batcher.accounting
      if (by === "AddUnsafe") batcher.addUnsafe(agentId, facts)
      else yield* batcher.add(agentId, facts)
      const { dropped } = yield* batcher.accounting
      // What a full queue had no room for is the report's end.
      const queued = facts.slice(0, facts.length - (dropped - before.dropped))
      for (const { collectedAt, key, value } of queued) {
        model.put(agentId, key, collectedAt.epochMilliseconds, value)
      }
    })

  writes.answer(
    ...plan.writeMillis.map((millis) =>
      // Also in the middle of a flush.
      Effect.andThen(assertAccount(started), Effect.sleep(millis))
    )
  )
  for (const step of plan.steps) {
    if (step._tag === "Add" || step._tag === "AddUnsafe") yield* add(step.report, step._tag)
    if (step._tag === "Wait") yield* TestClock.adjust(step.millis)
    // Not awaited: the clock moves only as the plan says, and a write may be waiting for it.
    if (step._tag === "Flush") yield* Effect.forkChild(batcher.flush)
    if (step._tag === "Yield") yield* Effect.yieldNow
    yield* assertAccount(started)
  }
  return model
})

const assertAccount = ({ batcher }: Started) => Effect.flatMap(batcher.accounting, assertAddsUp)

/** What a store that keeps the newest holds after these writes. */
const storedAfter = (batches: ReadonlyArray<MetadataBatch>) => {
  const store = makeNewest()
  for (const { agentIds, collectedAt, keys, values } of batches) {
    assert.strictEqual(new Set(agentIds.map((agentId, row) => `${agentId} ${keys[row]}`)).size, keys.length)
    agentIds.forEach((agentId, row) => {
      store.put(agentId, keys[row] ?? "", collectedAt[row] ?? Number.NaN, values[row] ?? "")
    })
  }
  return store.newest
}

const optionsOf = ({ maxBatchSize, writeConcurrency }: Plan) => ({
  maxBatchSize,
  writeConcurrency,
  interval: "1 second" as const
})

const runs = { arbitrary: { runs: 300 } }

describe("Facts: laws", () => {
  it.effect.prop(
    "after a flush the store holds what a fold of newest-wins holds",
    { plan: Plan },
    ({ plan }) =>
      Effect.gen(function* () {
        const started = yield* start(optionsOf({ ...plan, writeConcurrency: 1 }))
        const model = yield* run(plan, started)
        // Every held write ends.
        yield* TestClock.adjust("1 minute")
        yield* started.batcher.flush
        assert.deepStrictEqual(storedAfter(started.writes.succeeded), model.newest)
        const account = yield* started.batcher.accounting
        yield* assertAddsUp(account)
        assert.deepInclude(account, { queued: 0, pending: 0, inFlight: 0, discarded: 0 })
        // Each key at least once; what the store passed over is no write.
        const sent = started.writes.succeeded.reduce((sum, { keys }) => sum + keys.length, 0)
        assert.isAtMost(account.written, sent)
        assert.isAtLeast(account.written, model.newest.size)
      }),
    runs
  )

  it.effect.prop(
    "nothing accepted is lost at shutdown",
    { plan: Plan },
    ({ plan }) =>
      Effect.gen(function* () {
        const started = yield* start(optionsOf(plan))
        const model = yield* run(plan, started)
        const closed = yield* Effect.forkChild(started.close, { startImmediately: true })
        yield* TestClock.adjust("14 seconds")
        assert.isDefined(closed.pollUnsafe())
        assert.deepStrictEqual(
          new Map(Array.from(storedAfter(started.writes.succeeded), ([key, [at]]) => [key, at])),
          new Map(Array.from(model.newest, ([key, [at]]) => [key, at]))
        )
        const account = yield* started.batcher.accounting
        yield* assertAddsUp(account)
        assert.deepInclude(account, { queued: 0, pending: 0, inFlight: 0, discarded: 0 })
      }),
    runs
  )

  it.effect.prop(
    "a store that fails now and then loses nothing and turns nothing back",
    {
      plan: Plan,
      failures: Schema.Array(Schema.Literals(["ok", "unavailable", "canceled", "hang"])).check(
        Schema.isMaxLength(20)
      )
    },
    ({ failures, plan }) =>
      Effect.gen(function* () {
        const started = yield* start({
          ...optionsOf({ ...plan, writeConcurrency: 1 }),
          writeTimeout: "1 second"
        })
        const answers = {
          ok: Effect.void,
          unavailable: Effect.fail(Store.unavailable("down")),
          canceled: Effect.fail(Store.canceled("canceled")),
          hang: Effect.never
        }
        started.writes.answer(...failures.map((failure) => answers[failure]))
        const model = yield* run({ ...plan, writeMillis: [] }, started)
        yield* TestClock.adjust("2 minutes")
        yield* started.batcher.flush
        assert.deepStrictEqual(storedAfter(started.writes.succeeded), model.newest)
        const account = yield* started.batcher.accounting
        yield* assertAddsUp(account)
        assert.deepInclude(account, { queued: 0, pending: 0, inFlight: 0, discarded: 0 })
      }),
    runs
  )
})

describe("Statistics: laws", () => {
  /** Faults after which the same rows may be written again. */
  const Passing = Schema.Union([
    Schema.Struct({ _tag: Schema.Literals(["Delay", "Late"]), millis: below(60_000) }),
    Schema.Struct({
      _tag: Schema.tag("Fail"),
      reason: Schema.Literals(["Unavailable", "Canceled", "Rejected"]),
      millis: below(3000)
    }),
    Schema.Struct({ _tag: Schema.Literals(["Die", "Interrupt", "AnswerLost"]) }),
    Schema.Struct({ _tag: Schema.tag("Hang"), interruptible: Schema.Boolean })
  ])
  const StatsStep = Schema.Union([
    Schema.TaggedStruct("Add", { count: below(30), refused: Schema.Boolean }),
    Schema.TaggedStruct("Wait", { millis: below(3000) }),
    Schema.TaggedStruct("Flush", {}),
    Schema.TaggedStruct("Inject", { faults: Schema.Array(Passing).check(Schema.isMaxLength(6)) })
  ])
  const StatsSteps = Schema.Array(StatsStep).check(Schema.isMaxLength(40))

  /** Goes through the steps, then lets the store become well and the batcher catch up. */
  const play = Effect.fnUntraced(function* (
    steps: typeof StatsSteps.Type,
    options: StatsBatcher.Options & { readonly maxPending: number; readonly capacity: number }
  ) {
    const { batcher, stats, writes } = yield* startStats(options)
    let offered = 0
    const accepted: Array<number> = []
    let refused = 0
    const stored = Effect.map(stats, (rows) => rows.map(({ rxBytes }) => Number(rxBytes)))

    const check = Effect.gen(function* () {
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.strictEqual(account.offered, offered)
      // What is in flight comes on top, and may come back.
      const { maxBatchSize = 1_024, writeConcurrency = 1 } = options
      assert.isAtMost(account.inFlight, maxBatchSize * writeConcurrency)
      assert.isAtMost(account.pending + account.refused, options.maxPending + maxBatchSize * writeConcurrency)
      assert.isAtMost(account.queued, options.capacity)
      assert.isAtMost(account.written, (yield* stored).length)
      for (const count of Object.values(account)) assert.isAtLeast(count, 0)
    })

    for (const step of steps) {
      if (step._tag === "Add") {
        for (let row = 0; row < step.count; row++) {
          const isRefused = step.refused && row === 0
          const taken = batcher.addUnsafe(
            makeStats({
              id: crypto.randomUUID(),
              agentId: agentIdOf(offered % 3),
              rxBytes: BigInt(offered),
              rxPackets: isRefused ? 2n ** 63n : 0n
            })
          )
          if (taken === 1 && isRefused) refused += 1
          else if (taken === 1) accepted.push(offered)
          offered += 1
        }
      }
      if (step._tag === "Wait") yield* TestClock.adjust(step.millis)
      if (step._tag === "Flush") yield* Effect.forkChild(batcher.flush)
      if (step._tag === "Inject") writes.suffer(step.faults)
      yield* check
    }

    writes.suffer([])
    yield* TestClock.adjust("5 minutes")
    yield* check
    const account = yield* batcher.accounting
    assert.deepInclude(account, { queued: 0, pending: 0, inFlight: 0 })
    return { account, accepted, refused, stored: yield* stored }
  })

  it.effect.prop(
    "the account adds up at every step and the bounds hold",
    {
      steps: StatsSteps,
      maxBatchSize: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 })),
      writeConcurrency: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })),
      onWriteFailure: Schema.Literals(["requeue", "discard"])
    },
    ({ maxBatchSize, onWriteFailure, steps, writeConcurrency }) =>
      Effect.gen(function* () {
        const [capacity, maxPending] = [2 * maxBatchSize, maxBatchSize + 5]
        const { accepted, account, refused, stored } = yield* play(steps, {
          maxBatchSize,
          onWriteFailure,
          writeConcurrency,
          capacity,
          maxPending
        })
        assert.strictEqual(new Set(stored).size, stored.length)
        assert.isTrue(stored.every((number) => accepted.includes(number)))
        // A write of unknown outcome may have stored what was then given up.
        assert.isAtLeast(stored.length, account.written)
        assert.isAtLeast(account.refused + account.discarded + account.dropped, refused)
      }),
    { arbitrary: { runs: 150 } }
  )

  it.effect.prop(
    "every accepted row is stored exactly once, or waits apart because it is refused",
    { steps: StatsSteps, maxBatchSize: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 })) },
    ({ maxBatchSize, steps }) =>
      Effect.gen(function* () {
        const options = { maxBatchSize, capacity: 1000, maxPending: 10_000 }
        const { accepted, account, refused, stored } = yield* play(steps, options)
        assert.deepStrictEqual(
          [...stored].sort((a, b) => a - b),
          accepted
        )
        assert.deepInclude(account, { written: accepted.length, refused, discarded: 0, dropped: 0 })
      }),
    { arbitrary: { runs: 150 } }
  )
})
