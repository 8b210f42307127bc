/** What holds for a `StatsBatcher` whatever is added, however time passes, and whatever the store does. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, assertAddsUp, run } from "./support/Fakes.ts"
import { playlist, suffer } from "./support/Faults.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const listOf = <S extends Schema.Constraint>(item: S, maxLength: number) =>
  Schema.Array(item).check(Schema.isMaxLength(maxLength))

/** Faults after which the same rows may be written again. */
const Passing = Schema.Union([
  Schema.Struct({ _tag: Schema.Literals(["Delay", "Late"]), millis: between(0, 60_000) }),
  Schema.Struct({
    _tag: Schema.tag("Fail"),
    reason: Schema.Literals(["Unavailable", "Canceled"]),
    millis: between(0, 3000)
  }),
  Schema.Struct({ _tag: Schema.Literals(["Die", "Interrupt", "AnswerLost"]) }),
  Schema.Struct({ _tag: Schema.tag("Hang"), interruptible: Schema.Boolean })
])

const Reject = Schema.Struct({ _tag: Schema.tag("Reject"), names: Schema.Boolean })

const stepsOf = <S extends Schema.Constraint>(fault: S) =>
  listOf(
    Schema.Union([
      Schema.Struct({ _tag: Schema.tag("Add"), count: between(1, 30), refused: Schema.Boolean }),
      Schema.Struct({ _tag: Schema.tag("Wait"), millis: between(0, 3000) }),
      Schema.Struct({ _tag: Schema.tag("Flush") }),
      Schema.Struct({ _tag: Schema.tag("Inject"), faults: listOf(fault, 6) })
    ]),
    40
  )

const Steps = stepsOf(Schema.Union([Passing, Reject]))

/** Goes through the steps, then lets the store become well and the batcher catch up. */
const play = Effect.fnUntraced(function* (
  steps: typeof Steps.Type,
  options: StatsBatcher.Options & { readonly maxPending: number; readonly capacity: number }
) {
  const memory = yield* Store.makeMemory
  const faults = playlist()
  const store = Store.Store.of({
    ...memory.store,
    batchInsertStats: (rows) =>
      suffer(faults.next(), memory.store.batchInsertStats(rows), {
        unavailable: Store.unavailable,
        canceled: Store.canceled,
        reject: (names) =>
          names
            ? Effect.map(memory.store.batchInsertStats(rows.slice(1)), (rest) => ({
                ...rest,
                refused: [
                  { position: 0, why: "refused" },
                  ...rest.refused.map(({ position, why }) => ({ position: position + 1, why }))
                ]
              }))
            : Effect.fail(Store.rejected(new Error("refused")))
      })
  })
  const { batcher } = yield* run(
    "stats",
    Effect.provideService(StatsBatcher.make(options), Store.Store, store)
  )

  let offered = 0
  const accepted: Array<number> = []
  let refused = 0
  const stored = Effect.map(memory.stats, (rows) => rows.map(({ rxBytes }) => Number(rxBytes)))

  const check = Effect.gen(function* () {
    const account = yield* batcher.accounting
    yield* assertAddsUp(account)
    assert.strictEqual(account.offered, offered)
    assert.isAtMost(account.pending + account.inFlight, options.maxPending)
    assert.isAtMost(account.queued, options.capacity)
    assert.isAtMost(account.written, (yield* stored).length)
    for (const count of Object.values(account)) assert.isAtLeast(count, 0)
  })

  for (const step of steps) {
    switch (step._tag) {
      case "Add":
        for (let row = 0; row < step.count; row++) {
          const isRefused = step.refused && row === 0
          const queued = batcher.addUnsafe(
            makeStats({
              agentId: agentIdOf(offered % 3),
              rxBytes: BigInt(offered),
              rxPackets: isRefused ? 2n ** 63n : 0n
            })
          )
          if (queued === 1 && isRefused) refused += 1
          else if (queued === 1) accepted.push(offered)
          offered += 1
        }
        break
      case "Wait":
        yield* TestClock.adjust(step.millis)
        break
      case "Flush":
        yield* Effect.forkScoped(batcher.flush)
        break
      case "Inject":
        faults.play(step.faults)
    }
    yield* check
  }

  faults.play([])
  yield* TestClock.adjust("3 minutes")
  yield* check
  const account = yield* batcher.accounting
  assert.deepInclude(account, { queued: 0, pending: 0, inFlight: 0 })
  return { account, accepted, refused, stored: yield* stored }
})

describe("StatsBatcher: laws", () => {
  it.effect.prop(
    "the account adds up at every step and the bounds hold",
    {
      steps: Steps,
      maxBatchSize: between(1, 20),
      writeConcurrency: between(1, 3),
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
        assert.isAtLeast(account.discarded + account.dropped, refused)
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 200 } }
  )

  it.effect.prop(
    "every accepted row is stored exactly once, in the order it came, or discarded because it was refused",
    { steps: stepsOf(Passing), maxBatchSize: between(1, 40) },
    ({ maxBatchSize, steps }) =>
      Effect.gen(function* () {
        const options = { maxBatchSize, capacity: 1000, maxPending: 10_000 }
        const { accepted, account, refused, stored } = yield* play(steps, options)
        assert.deepStrictEqual(stored, accepted)
        assert.deepInclude(account, {
          written: accepted.length,
          discarded: refused,
          dropped: account.offered - accepted.length - refused
        })
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 200 } }
  )
})
