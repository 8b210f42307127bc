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
import * as Store from "../src/Store.ts"
import { agentIdOf, assertAddsUp, fact, type Started, start } from "./support/Fakes.ts"

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

describe("MetadataBatcher: laws", () => {
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
