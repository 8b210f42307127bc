/** What an operator sees of a flush: its spans and their links. */
import { assert, describe, it, layer } from "@effect/vitest"
import { SpanKind, SpanStatusCode } from "@opentelemetry/api"
import {
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  SamplingDecision
} from "@opentelemetry/sdk-trace-base"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import * as TestClock from "effect/testing/TestClock"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as PgPubsub from "../src/PgPubsub.ts"
import * as PgStore from "../src/PgStore.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, fact, facts, makeAgentId, refusing, start, startStats } from "./support/Fakes.ts"
import { collectGarbage } from "./support/Garbage.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"
import * as Spans from "./support/Spans.ts"
import { withSpans } from "./support/Spans.ts"

const unavailable = Effect.fail(Store.unavailable(new Error("server is shutting down")))

const shown = (span: ReadableSpan) => ({
  name: span.name,
  kind: span.kind,
  parent: span.parentSpanContext?.spanId,
  from: span.startTime,
  to: span.endTime,
  status: span.status,
  attributes: span.attributes
})

const linksOf = (span: ReadableSpan | undefined) => (span?.links ?? []).map(({ context }) => context.spanId)

const spanIdsOf = (spans: ReadonlyArray<ReadableSpan>) => spans.map((span) => span.spanContext().spanId)

/** Samples the spans of one name. */
class NamedSampler implements Sampler {
  private readonly name: string
  constructor(name: string) {
    this.name = name
  }
  shouldSample(...[, , name]: Parameters<Sampler["shouldSample"]>) {
    return {
      decision: name === this.name ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD
    }
  }
}

describe("the spans of a flush", () => {
  it.effect("are none if it is not sampled, and what the store does starts no trace of its own", () => {
    const { layer, spans } = Spans.make({
      // A parent decides for those below it; a trace of its own would be sampled.
      sampler: new ParentBasedSampler({ root: new NamedSampler("query") })
    })
    return Effect.gen(function* () {
      const { batcher, until, writes } = yield* start()
      writes.answer(Effect.withSpan(Effect.void, "query"))
      yield* batcher.add(agentIdOf(1), facts(3))
      yield* TestClock.adjust("5 seconds")
      yield* until(({ written }) => written === 3)
      assert.deepStrictEqual(spans.all(), [])
      yield* Effect.withSpan(Effect.void, "query")
      assert.strictEqual(spans.all().length, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect(
    "are a root and one below it for each step",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, publishes, until, writes } = yield* start()
        writes.answer(Effect.sleep("40 millis"))
        publishes.answer(Effect.sleep("2 millis"))
        yield* batcher.add(agentIdOf(1), facts(3))
        yield* batcher.add(agentIdOf(1), [fact("key 0", "newer", 1), fact("key 1", "older", -1)])
        yield* TestClock.adjust("1 second")
        yield* batcher.add(agentIdOf(2), facts(4))
        yield* until(({ pending }) => pending === 7)
        yield* TestClock.adjust("5 seconds")
        yield* until(({ written }) => written === 7)

        const root = spans.named("MetadataBatcher.flush")[0]?.spanContext().spanId
        assert.deepStrictEqual(spans.all().map(shown), [
          {
            name: "MetadataBatcher.flush",
            kind: SpanKind.INTERNAL,
            parent: undefined,
            from: [5, 0],
            to: [5, 42_000_000],
            status: { code: SpanStatusCode.OK },
            attributes: {
              "batcher.flush.reason": "scheduled",
              "batcher.flush.attempt": 1,
              "batcher.flush.outcome": "written",
              "batcher.batch.size": 7,
              "batcher.batch.agents": 2,
              // Three rows that were added at once, four after a second.
              "batcher.queue_wait.oldest_ms": 5000,
              "batcher.queue_wait.mean_ms": (3 * 5000 + 4 * 4000) / 7,
              "batcher.rows.superseded": 2,
              "batcher.rows.written": 7,
              "batcher.rows.refused": 0,
              "batcher.rows.discarded": 0,
              "batcher.rows.requeued": 0,
              "batcher.links.omitted": 0
            }
          },
          {
            name: "MetadataBatcher.write",
            kind: SpanKind.INTERNAL,
            parent: root,
            from: [5, 0],
            to: [5, 40_000_000],
            status: { code: SpanStatusCode.OK },
            attributes: { "db.operation.batch.size": 7 }
          },
          {
            name: "MetadataBatcher.publish",
            kind: SpanKind.CLIENT,
            parent: root,
            from: [5, 40_000_000],
            to: [5, 42_000_000],
            status: { code: SpanStatusCode.OK },
            // A single message is no batch, say the conventions.
            attributes: {
              "messaging.system": "pubsub",
              "messaging.operation.name": "publish",
              "messaging.operation.type": "send",
              "messaging.destination.name": "workspace_agent_metadata_batch"
            }
          }
        ])
      })
    )
  )

  it.effect(
    "of statistics have no notification",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher } = yield* startStats()
        yield* batcher.add(makeStats({ agentId: agentIdOf(1) }))
        yield* batcher.flush
        assert.deepStrictEqual(
          spans.all().map(({ attributes, name }) => [name, attributes["batcher.flush.reason"]]),
          [
            ["StatsBatcher.flush", "manual"],
            ["StatsBatcher.write", undefined]
          ]
        )
        // One operation is no batch, say the conventions.
        assert.deepStrictEqual(spans.named("StatsBatcher.write")[0]?.attributes, {})
      })
    )
  )

  it.effect(
    "show a failed write, and the attempts after it",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, until, writes } = yield* start()
        writes.answer(unavailable, unavailable)
        yield* batcher.add(agentIdOf(1), facts(3))
        yield* batcher.flush
        yield* batcher.add(agentIdOf(1), [fact("key 0", "newer", 1)])
        yield* TestClock.adjust("5 seconds")
        yield* until(({ written }) => written === 3)

        const attempts = spans.named("MetadataBatcher.flush")
        assert.deepStrictEqual(
          attempts.map(({ attributes }) => [
            attributes["batcher.flush.attempt"],
            attributes["batcher.flush.outcome"],
            attributes["batcher.rows.written"],
            attributes["batcher.rows.requeued"],
            attributes["batcher.rows.superseded"],
            attributes["error.type"]
          ]),
          [
            [1, "requeued", 0, 3, 0, "Unavailable"],
            [2, "requeued", 0, 3, 1, "Unavailable"],
            [3, "written", 3, 0, 0, undefined]
          ]
        )
        assert.deepStrictEqual(
          attempts.map(({ status }) => status.code),
          [SpanStatusCode.ERROR, SpanStatusCode.ERROR, SpanStatusCode.OK]
        )
        const [write, ...others] = spans.childrenOf(attempts[0])
        assert.deepStrictEqual(others, [])
        assert.strictEqual(write?.status.code, SpanStatusCode.ERROR)
        assert.include(write?.status.message, "server is shutting down")
        assert.strictEqual(write?.attributes["error.type"], "Unavailable")
      })
    )
  )

  it.effect(
    "show each statement of a search for rows at fault, and that the others were written",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, writes } = yield* start()
        writes.answerAll((batch) =>
          batch.values.includes("bad") ? Effect.fail(Store.rejected(new Error("invalid"))) : Effect.void
        )
        yield* batcher.add(agentIdOf(1), facts(3))
        yield* batcher.add(agentIdOf(2), [fact("cpu", "bad")])
        yield* batcher.flush

        const [root] = spans.named("MetadataBatcher.flush")
        assert.strictEqual(root?.status.code, SpanStatusCode.OK)
        assert.deepInclude(root?.attributes, {
          "batcher.flush.outcome": "written",
          "batcher.rows.written": 3,
          "batcher.rows.refused": 1,
          "batcher.rows.discarded": 0,
          "batcher.rows.requeued": 0
        })
        const statements = spans.named("MetadataBatcher.write")
        assert.strictEqual(statements.length, writes.calls.length)
        assert.deepStrictEqual(
          statements.map(({ attributes }) => attributes["error.type"]),
          writes.calls.map(({ values }) => (values.includes("bad") ? "Rejected" : undefined))
        )
      })
    )
  )

  it.effect(
    "say when a batch is given up",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, writes } = yield* start({ onWriteFailure: "discard" })
        writes.answer(unavailable)
        yield* batcher.add(agentIdOf(1), facts(3))
        yield* batcher.flush
        assert.deepInclude(spans.named("MetadataBatcher.flush")[0]?.attributes, {
          "batcher.flush.outcome": "discarded",
          "batcher.rows.written": 0,
          "batcher.rows.discarded": 3,
          "batcher.rows.requeued": 0
        })
      })
    )
  )

  it.effect(
    "say when the store refused all of it",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, writes } = yield* start()
        writes.answer(Effect.succeed(refusing(1, [0])))
        yield* batcher.add(agentIdOf(1), facts(1))
        yield* batcher.flush
        const [root] = spans.named("MetadataBatcher.flush")
        assert.deepInclude(root?.attributes, {
          "batcher.flush.outcome": "refused",
          "batcher.rows.written": 0,
          "batcher.rows.refused": 1,
          "batcher.rows.discarded": 0
        })
      })
    )
  )

  it.effect(
    "say when the close did not wait for the write any longer",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, close, writes } = yield* start({ shutdownTimeout: "2 seconds" })
        writes.answer(Effect.never)
        yield* batcher.add(agentIdOf(1), facts(3))
        const closed = yield* Effect.forkChild(close, { startImmediately: true })
        yield* writes.began
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(closed)
        const [root] = spans.named("MetadataBatcher.flush")
        assert.deepInclude(root?.attributes, {
          "batcher.flush.reason": "shutdown",
          "batcher.flush.outcome": "requeued",
          "batcher.batch.agents": 1,
          "batcher.rows.written": 0,
          "batcher.rows.discarded": 0,
          "batcher.rows.requeued": 3
        })
        assert.deepStrictEqual(root?.endTime, [2, 0])
      })
    )
  )

  it.effect(
    "end, whatever the close has to give up",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, closeInTime, writes } = yield* start({ writeTimeout: 0 })
        writes.answerAll(() => Effect.never)
        batcher.addUnsafe(agentIdOf(1), facts(3))
        yield* TestClock.adjust("5 seconds")
        yield* closeInTime
        // The write that hung, and the last try.
        assert.deepStrictEqual(
          spans.named("MetadataBatcher.flush").map(({ attributes }) => attributes["batcher.flush.outcome"]),
          ["requeued", "abandoned"]
        )
      })
    )
  )

  it.effect(
    "show a failed notification where it failed, and the flush as done",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, publishes } = yield* start()
        publishes.answer(Effect.fail(Pubsub.unavailable(new Error("no connection"))))
        yield* batcher.add(agentIdOf(1), facts(3))
        yield* batcher.flush
        assert.strictEqual(spans.named("MetadataBatcher.flush")[0]?.status.code, SpanStatusCode.OK)
        const [publish] = spans.named("MetadataBatcher.publish")
        const { code, message } = publish?.status ?? {}
        assert.strictEqual(code, SpanStatusCode.ERROR)
        assert.include(message, "no connection")
        assert.strictEqual(publish?.attributes["error.type"], "Unavailable")
      })
    )
  )

  it.effect(
    "count the messages of a notification that needs several",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher } = yield* start()
        for (let agent = 0; agent < 364; agent++) yield* batcher.add(agentIdOf(agent), facts(1))
        yield* batcher.flush
        const [publish] = spans.named("MetadataBatcher.publish")
        assert.strictEqual(publish?.attributes["messaging.batch.message_count"], 2)
      })
    )
  )

  it.effect(
    "have none for parent, whoever builds, adds or flushes",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, close, until } = yield* Effect.withSpan(start({ maxBatchSize: 3 }), "build")
        yield* Effect.withSpan(batcher.add(agentIdOf(1), facts(3)), "add")
        yield* until(({ written }) => written === 3)
        yield* batcher.add(agentIdOf(1), facts(1))
        yield* Effect.withSpan(batcher.flush, "flush")
        yield* batcher.add(agentIdOf(1), facts(1))
        yield* TestClock.adjust("5 seconds")
        yield* until(({ written }) => written === 5)
        yield* batcher.add(agentIdOf(1), facts(1))
        yield* Effect.withSpan(close, "close")

        const roots = spans.all().filter(({ parentSpanContext }) => parentSpanContext === undefined)
        const flushes = spans.named("MetadataBatcher.flush")
        assert.deepStrictEqual(
          flushes.map(({ attributes }) => attributes["batcher.flush.reason"]),
          ["capacity", "manual", "scheduled", "shutdown"]
        )
        assert.deepStrictEqual(
          roots.map(({ name }) => name).filter((name) => name !== "MetadataBatcher.flush"),
          ["build", "add", "flush", "close"]
        )
        assert.strictEqual(roots.length, 4 + flushes.length)
        assert.strictEqual(new Set(roots.map((span) => span.spanContext().traceId)).size, roots.length)
        for (const name of ["build", "add", "flush", "close"]) {
          assert.deepStrictEqual(spans.childrenOf(spans.named(name)[0]), [])
        }
      })
    )
  )

  it.effect(
    "are none while tracing is off",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher } = yield* Effect.withTracerEnabled(start(), false)
        yield* batcher.add(agentIdOf(1), facts(3))
        yield* batcher.flush
        assert.deepStrictEqual(spans.all(), [])
      })
    )
  )
})

describe("the links of a flush", () => {
  it.effect(
    "lead to the spans of those whose rows it writes",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher } = yield* start()
        const add = (agent: number, key: string, at = 0) => batcher.add(agentIdOf(agent), [fact(key, "", at)])

        yield* Effect.withSpan(Effect.andThen(add(1, "a"), add(2, "a")), "twice")
        yield* Effect.withSpan(add(3, "a"), "superseded")
        yield* Effect.withSpan(add(3, "a", 1), "newest")
        yield* Effect.withSpan(add(3, "a", -1), "too old")
        yield* Effect.withSpan(
          batcher.addColumns(agentIdOf(4), {
            keys: ["a"],
            values: [""],
            errors: [""],
            collectedAt: [fact("", "").collectedAt]
          }),
          "columns"
        )
        yield* add(5, "a")
        batcher.addUnsafe(agentIdOf(6), [fact("a", "")])
        yield* batcher.flush
        yield* Effect.withSpan(add(1, "a"), "next")
        yield* batcher.flush

        const [first, second] = spans.named("MetadataBatcher.flush")
        const idsNamed = (...names: ReadonlyArray<string>) =>
          names.flatMap((name) => spanIdsOf(spans.named(name)))
        assert.sameMembers(linksOf(first), idsNamed("twice", "newest", "columns"))
        assert.deepStrictEqual(linksOf(second), idsNamed("next"))
        // Only the flush itself is linked, and no span is opened for adding.
        assert.strictEqual(spans.all().flatMap(linksOf).length, 4)
        assert.strictEqual(spans.all().length, 6 + 2 * 3)
      })
    )
  )

  it.effect(
    "are repeated by each attempt",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher, until, writes } = yield* start()
        writes.answer(unavailable)
        yield* Effect.withSpan(batcher.add(agentIdOf(1), facts(3)), "request")
        yield* batcher.flush
        yield* TestClock.adjust("5 seconds")
        yield* until(({ written }) => written === 3)
        const request = spanIdsOf(spans.named("request"))
        assert.deepStrictEqual(spans.named("MetadataBatcher.flush").map(linksOf), [request, request])
      })
    )
  )

  it.effect(
    "lead to sampled spans only",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher } = yield* start()
        const remote = (sampled: boolean) =>
          Tracer.externalSpan({ traceId: "a".repeat(32), spanId: (sampled ? "b" : "c").repeat(16), sampled })
        const add = (agent: number, sampled: boolean) =>
          Effect.withParentSpan(batcher.add(agentIdOf(agent), facts(1)), remote(sampled))
        yield* add(1, true)
        yield* add(2, false)
        yield* batcher
          .add(agentIdOf(3), facts(1))
          .pipe(Effect.withSpan("below one that is not sampled"), Effect.withParentSpan(remote(false)))
        yield* batcher.flush
        const [root] = spans.named("MetadataBatcher.flush")
        assert.deepStrictEqual(linksOf(root), ["b".repeat(16)])
        assert.strictEqual(root?.attributes["batcher.links.omitted"], 0)
      })
    )
  )

  it.effect("keep nothing of what a caller's effect gave back, however long its facts wait", () =>
    Effect.gen(function* () {
      const { batcher, until } = yield* start()
      const given = yield* batcher.add(agentIdOf(1), facts(1)).pipe(
        Effect.andThen(Effect.sync(() => ({ body: "of a response" }))),
        Effect.withSpan("request"),
        Effect.map((response) => new WeakRef(response))
      )
      yield* until(({ pending }) => pending === 1)
      yield* collectGarbage
      assert.isUndefined(given.deref())
    })
  )

  it.effect(
    "are at most 128, and the number of the others is said",
    withSpans((spans) =>
      Effect.gen(function* () {
        const { batcher } = yield* start()
        const add = (agent: number) => Effect.withSpan(batcher.add(agentIdOf(agent), facts(2)), "request")
        for (let agent = 0; agent < 128; agent++) yield* add(agent)
        yield* batcher.flush
        for (let agent = 0; agent < 200; agent++) yield* add(agent)
        yield* batcher.flush
        const flushes = spans.named("MetadataBatcher.flush")
        assert.deepStrictEqual(
          flushes.map((span) => [linksOf(span).length, span.attributes["batcher.links.omitted"]]),
          [
            [128, 0],
            [128, 72]
          ]
        )
        assert.deepStrictEqual(
          flushes.map(({ droppedLinksCount }) => droppedLinksCount),
          [0, 0]
        )
        // Those that have waited longest.
        assert.sameMembers(linksOf(flushes[1]), spanIdsOf(spans.named("request")).slice(128, 256))
      })
    )
  )
})

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("with PostgreSQL", (it) => {
  it.effect(
    "the statements are below the steps that send them",
    withSpans((spans) =>
      Effect.gen(function* () {
        const batcher = yield* MetadataBatcher.make().pipe(
          Effect.provideServiceEffect(Store.Store, PgStore.make()),
          Effect.provideServiceEffect(Pubsub.Pubsub, PgPubsub.make())
        )
        yield* batcher.add(makeAgentId(), facts(3))
        yield* batcher.flush

        const [root] = spans.named("MetadataBatcher.flush")
        assert.isUndefined(root?.parentSpanContext)
        const [write, publish, ...others] = spans.childrenOf(root)
        assert.deepStrictEqual(
          [write?.name, publish?.name],
          ["MetadataBatcher.write", "MetadataBatcher.publish"]
        )
        assert.deepStrictEqual(others, [])
        const statementsOf = (step: ReadableSpan | undefined) =>
          spans
            .childrenOf(step)
            .map(({ attributes, kind, status }) => [
              kind,
              status.code,
              attributes["db.system.name"],
              String(attributes["db.query.text"]).trim().split(/[ (]/, 3).join(" ")
            ])
        assert.deepStrictEqual(statementsOf(write), [
          [SpanKind.CLIENT, SpanStatusCode.OK, "postgresql", 'INSERT INTO "workspace_agent_metadata"']
        ])
        assert.deepStrictEqual(statementsOf(publish), [
          [SpanKind.CLIENT, SpanStatusCode.OK, "postgresql", "SELECT pg_notify $1,"]
        ])
        const below = [root, write, publish, ...spans.childrenOf(write), ...spans.childrenOf(publish)]
        assert.strictEqual(new Set(below.map((span) => span?.spanContext().traceId)).size, 1)
      }).pipe(Effect.scoped)
    )
  )
})
