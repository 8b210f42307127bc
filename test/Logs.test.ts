/** Log lines say which batcher and which flush they belong to, and one that cannot be written ends nothing. */
import { assert, describe, it } from "@effect/vitest"
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf, assertAddsUp, fact, facts, refusing, start } from "./support/Fakes.ts"
import { withSpans } from "./support/Spans.ts"

const agent = agentIdOf(1)

const idsOf = (span: ReadableSpan | undefined) => {
  const { spanId, traceId } = span?.spanContext() ?? {}
  return { traceId, spanId }
}

describe("Log lines", () => {
  it.effect(
    "within a flush say which",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, logs, publishes, until, writes } = yield* start()
        writes.answer(
          Effect.succeed(refusing(3, [0])),
          Effect.fail(Store.unavailable(new Error("server is shutting down")))
        )
        publishes.answer(Effect.fail(Pubsub.unavailable(new Error("no connection"))))
        yield* batcher.add(agent, facts(3))
        yield* batcher.flush
        // The refused row, a second later, while the store is away.
        yield* TestClock.adjust("1 second")
        yield* TestClock.adjust("5 seconds")
        yield* until(({ written }) => written === 3)

        const [flush] = spans.named("MetadataBatcher.flush")
        const [first, second] = spans.named("MetadataBatcher.retry")
        const of = (reason: string, batchSize: number, span: ReadableSpan | undefined) => ({
          batcher: "MetadataBatcher",
          reason,
          batchSize,
          ...idsOf(span)
        })
        const account = { seconds: 0, attempts: 1, pending: 0, dropped: 0 }
        assert.deepStrictEqual(
          logs.lines.map(({ annotations, level, message }) => [level, message, annotations]),
          [
            [
              "Warn",
              "the store refused 1 rows; they are tried again apart",
              {
                ...of("manual", 3, flush),
                count: 1,
                rows: [{ agent, key: "key 0", why: "refused by the test" }]
              }
            ],
            [
              "Warn",
              "failed to publish 1 notifications, will be retried",
              { ...of("manual", 3, flush), count: 1, error: "the pubsub is unavailable: no connection" }
            ],
            ["Debug", "flushed 2 rows", of("manual", 3, flush)],
            [
              "Warn",
              "store unavailable, keeping what comes until it is back",
              {
                ...of("scheduled", 1, first),
                ...account,
                error: "the store is unavailable: server is shutting down"
              }
            ],
            [
              "Warn",
              "store available again",
              {
                ...of("scheduled", 1, second),
                ...account,
                seconds: logs.lines[4]?.annotations["seconds"]
              }
            ],
            ["Debug", "flushed 1 rows", of("scheduled", 1, second)]
          ]
        )
      })
    )
  )

  it.effect("name the batcher, and no span where there is none", () =>
    Effect.gen(function* () {
      const { batcher, logs } = yield* start({ maxBatchSize: 2, maxPending: 2 })
      batcher.addUnsafe(agent, facts(5))
      yield* batcher.flush
      assert.deepStrictEqual((yield* logs.next("Warn")).annotations, {
        batcher: "MetadataBatcher",
        agent,
        maxPending: 2,
        maxPendingBytes: 64 * 2 ** 20,
        count: 3
      })
      assert.deepStrictEqual(logs.lines.find(({ level }) => level === "Debug")?.annotations, {
        batcher: "MetadataBatcher",
        reason: "manual",
        batchSize: 2
      })
    })
  )

  it.effect("carry nothing of whoever builds the layer", () =>
    Effect.gen(function* () {
      const { batcher, logs, writes } = yield* start().pipe(
        Effect.annotateLogs("request", "of the first caller"),
        Effect.withLogSpan("building")
      )
      writes.answer(Effect.fail(Store.unavailable("down")))
      yield* batcher.add(agent, facts(1)).pipe(Effect.annotateLogs("request", "of another"))
      yield* batcher.flush.pipe(Effect.annotateLogs("request", "of a third"))
      yield* TestClock.adjust("1 minute")
      assert.isAtLeast(logs.lines.length, 2)
      for (const { annotations } of logs.lines) assert.notProperty(annotations, "request")
    })
  )

  it.effect("escape what cannot be printed in names, and cut what is long", () =>
    Effect.gen(function* () {
      const { batcher, logs } = yield* start()
      batcher.addUnsafe(`\n\u0000"${"x".repeat(10_000)}` as never, [undefined as never])
      const { annotations } = yield* logs.next("Warn")
      assert.match(String(annotations["agent"]), /^\\n\\u0000\\"x+…$/)
      assert.isAtMost(String(annotations["agent"]).length, 130)
    })
  )

  it.effect("that a logger throws at end nothing", () =>
    Effect.gen(function* () {
      let logged = 0
      const throwing = Logger.make(() => {
        logged += 1
        throw new Error("disk full")
      })
      const { store } = yield* Store.makeMemory
      let calls = 0
      const batcher = yield* MetadataBatcher.make({ maxBatchSize: 2, capacity: 10, maxPending: 2 }).pipe(
        Effect.provideService(Store.Store, {
          ...store,
          batchUpdateMetadata: (batch) =>
            calls++ === 0
              ? Effect.succeed(refusing(batch.keys.length, [0]))
              : store.batchUpdateMetadata(batch)
        }),
        Effect.provide([Pubsub.layerMemory, Logger.layer([throwing])])
      )
      // More than may be pending, of which one row is refused.
      batcher.addUnsafe(agent, facts(20))
      yield* TestClock.adjust(0)
      assert.isAtLeast(logged, 2)
      // Nobody moves the clock: this is written at capacity or not at all.
      batcher.addUnsafe(agentIdOf(2), [fact("a", ""), fact("b", "")])
      yield* TestClock.adjust(0)
      const account = yield* batcher.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { pending: 0, inFlight: 0, written: 3 })
    })
  )
})
