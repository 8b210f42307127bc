/** Connection statistics: every report is kept, in its order. The sibling of facts on the same engine. */
import { assert, describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import type { AgentStats, AgentStatsRow } from "../src/AgentStats.ts"
import { statsBatchSizeBoundaries } from "../src/BatcherMetrics.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, assertAddsUp, assertMetrics, refusing, startStats } from "./support/Fakes.ts"

/** Report number 0, 1, …, told apart by its count of bytes. */
const report = (number: number, more?: Partial<AgentStats>): AgentStats => {
  const { id: _, ...stats } = makeStats({ agentId: agentIdOf(number), rxBytes: BigInt(number), ...more })
  return stats
}

const reports = (first: number, count: number): ReadonlyArray<AgentStats> =>
  Array.from({ length: count }, (_, number) => report(first + number))

const numbersOf = (rows: ReadonlyArray<AgentStatsRow>): ReadonlyArray<number> =>
  rows.map(({ rxBytes }) => Number(rxBytes))

const range = (first: number, count: number) => Array.from({ length: count }, (_, number) => first + number)

const idsOf = (rows: ReadonlyArray<AgentStatsRow>): ReadonlyArray<string> => rows.map(({ id }) => id)

const down = Effect.fail(Store.unavailable(new Error("down")))

describe("Statistics", () => {
  it.effect("nothing to flush", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      yield* started.batcher.flush
      yield* TestClock.adjust("1 minute")
      yield* started.close
      assert.deepStrictEqual(started.writes.calls, [])
      yield* assertMetrics(started, { batches: {}, flushed: 0, agents: 0 })
    })
  )

  it.effect("two rows of two agents in one write", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      const added = [
        report(1, { connectionsByProto: { ssh: 2, vscode: 1 }, txBytes: 2n ** 63n - 1n }),
        report(2, { connectionsByProto: {}, connectionMedianLatencyMs: -1 })
      ]
      for (const stats of added) yield* started.batcher.add(stats)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started.writes.times, [1000])
      assert.deepStrictEqual(
        started.writes.calls.map((rows) => rows.map(({ id: _, ...stats }) => stats)),
        [added]
      )
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 2, agents: 2 })
    })
  )

  it.effect("two reports of one agent are two rows, in the order they came", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats()
      const [first, second] = [report(1), report(1)]
      yield* batcher.add(second)
      yield* batcher.add(first)
      yield* batcher.add(second)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        writes.calls.map((rows) => rows.map(({ userId }) => userId)),
        [[second.userId, first.userId, second.userId]]
      )
    })
  )

  it.effect(
    "1,024 adds give one early flush at 820 rows or more and the rest at the next tick, together exactly 1,024",
    () =>
      Effect.gen(function* () {
        const started = yield* startStats()
        const { batcher, writes } = started
        yield* Effect.forEach(reports(0, 819), batcher.add)
        yield* TestClock.adjust("500 millis")
        assert.deepStrictEqual(writes.calls, [])
        yield* batcher.add(report(819))
        const early = yield* writes.ended
        assert.strictEqual(early.length, 820)
        yield* Effect.forEach(reports(820, 204), batcher.add)
        // One interval from the early flush, not from the one before.
        yield* TestClock.adjust("999 millis")
        assert.strictEqual(writes.calls.length, 1)
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(writes.times, [500, 1500])
        assert.deepStrictEqual(writes.calls.map(numbersOf), [range(0, 820), range(820, 204)])
        yield* assertMetrics(started, { batches: { capacity: 1, scheduled: 1 }, flushed: 1024, agents: 1024 })
      })
  )

  it.effect("1,024 adds in one go are written early and at the next tick, all of them", () =>
    Effect.gen(function* () {
      const { batcher, until, writes } = yield* startStats()
      for (const stats of reports(0, 1024)) batcher.addUnsafe(stats)
      const early = yield* writes.ended
      assert.isAtLeast(early.length, 820)
      yield* until(({ queued }) => queued === 0)
      yield* TestClock.adjust("1 second")
      assert.isAtMost(writes.calls.length, 2)
      assert.deepStrictEqual(numbersOf(writes.calls.flat()), range(0, 1024))
    })
  )

  it.effect("no stale data in the flush after", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats()
      yield* Effect.forEach(reports(0, 3), batcher.add)
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(reports(3, 2), batcher.add)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(writes.calls.map(numbersOf), [
        [0, 1, 2],
        [3, 4]
      ])
    })
  )

  it.effect("each report gets an id of its own when it is added, unless it brings one", () =>
    Effect.gen(function* () {
      const { batcher, stats, writes } = yield* startStats()
      const brought = makeStats()
      for (const stats of [brought, brought, ...reports(0, 1000)]) yield* batcher.add(stats)
      yield* batcher.flush
      const ids = idsOf(writes.calls.flat())
      assert.isTrue(ids.every(Schema.is(Schema.String.check(Schema.isGUID()))))
      assert.deepStrictEqual(ids.slice(0, 2), [brought.id, brought.id])
      assert.strictEqual(new Set(ids).size, 1001)
      // Whoever sends a report twice finds it stored once.
      assert.strictEqual((yield* stats).length, 1001)
    })
  )

  it.effect("times are cut to the microsecond", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats()
      const at = (milliseconds: number) => DateTime.mapEpochMillis(DateTime.makeUnsafe(0), () => milliseconds)
      for (const milliseconds of [1_700_000_000_123, 1_700_000_000_123 + 0.4567, 0.0019]) {
        yield* batcher.add(report(0, { createdAt: at(milliseconds) }))
      }
      yield* batcher.flush
      assert.deepStrictEqual(
        writes.calls.flat().map(({ createdAt }) => createdAt.epochMilliseconds),
        [1_700_000_000_123, 1_700_000_000_123 + 0.456, 0.001]
      )
    })
  )

  it.effect("a report changed after it was added is written as it was", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats()
      const connectionsByProto = { ssh: 1 }
      const reused = { ...report(1), connectionsByProto }
      yield* batcher.add(reused)
      reused.rxBytes = 2n
      connectionsByProto.ssh = 2
      yield* batcher.flush
      const [row] = writes.calls.flat()
      assert.deepInclude(row, { rxBytes: 1n, connectionsByProto: { ssh: 1 } })
    })
  )
})

describe("Statistics: bad days", () => {
  it.effect("failure then success writes every row exactly once", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      const { batcher, stats, writes } = started
      writes.answer(down, down)
      yield* Effect.forEach(reports(0, 3), batcher.add)
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* batcher.accounting, { pending: 3, inFlight: 0, written: 0 })
      yield* Effect.forEach(reports(3, 2), batcher.add)
      yield* TestClock.adjust("10 seconds")
      const [first = [], second = [], third = [], ...more] = writes.calls
      assert.deepStrictEqual([first, second, third].map(numbersOf), [range(0, 3), range(0, 5), range(0, 5)])
      assert.deepStrictEqual(more, [])
      // The ids are what tells the store that it has a row already.
      assert.deepStrictEqual(idsOf(first), idsOf(third).slice(0, 3))
      assert.deepStrictEqual(idsOf(second), idsOf(third))
      assert.deepStrictEqual(numbersOf(yield* stats), range(0, 5))
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 5, agents: 5 })
    })
  )

  it.effect("bounded when the store stays down", () =>
    Effect.gen(function* () {
      const started = yield* startStats({ maxBatchSize: 10, maxPending: 20 })
      const { batcher, writes } = started
      let isDown = true
      writes.answer(
        ...Array.from({ length: 1000 }, () => Effect.suspend(() => (isDown ? down : Effect.void)))
      )
      for (const stats of reports(0, 100)) {
        yield* batcher.add(stats)
        yield* TestClock.adjust("200 millis")
        const account = yield* batcher.accounting
        yield* assertAddsUp(account)
        assert.isAtMost(account.pending + account.inFlight, 20)
      }
      assert.deepInclude(yield* batcher.accounting, { discarded: 80, dropped: 0, written: 0 })
      assert.isTrue(writes.calls.every(({ length }) => length <= 10))
      isDown = false
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(numbersOf(writes.succeeded.flat()), range(80, 20))
      yield* assertMetrics(started, {
        batches: { scheduled: 1, capacity: 1 },
        flushed: 20,
        agents: 20,
        discarded: 80
      })
    })
  )

  it.effect("the oldest gives way, but not what is being written: that comes on top", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats({ maxBatchSize: 10, maxPending: 10 })
      const gate = writes.hold()
      for (const stats of reports(0, 8)) batcher.addUnsafe(stats)
      yield* writes.began
      for (const stats of reports(8, 15)) assert.strictEqual(batcher.addUnsafe(stats), 1)
      yield* TestClock.adjust(0)
      assert.deepInclude(yield* batcher.accounting, { inFlight: 8, pending: 10, discarded: 5, dropped: 0 })
      yield* gate.open
      yield* batcher.flush
      assert.deepStrictEqual(numbersOf(writes.succeeded.flat()), [...range(0, 8), ...range(13, 10)])
    })
  )

  it.effect("the newest is dropped when all bytes are being written: nothing can give way", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats({ maxBatchSize: 10, maxPendingBytes: 8 * 550 })
      const gate = writes.hold()
      for (const stats of reports(0, 8)) assert.strictEqual(batcher.addUnsafe(stats), 1)
      yield* writes.began
      assert.strictEqual(batcher.addUnsafe(report(8)), 0)
      assert.deepInclude(yield* batcher.accounting, { inFlight: 8, pending: 0, discarded: 0, dropped: 1 })
      yield* gate.open
    })
  )

  it.effect("discards a failed batch when told so", () =>
    Effect.gen(function* () {
      const started = yield* startStats({ onWriteFailure: "discard" })
      started.writes.answer(down)
      yield* Effect.forEach(reports(0, 3), started.batcher.add)
      yield* TestClock.adjust("1 second")
      yield* started.batcher.add(report(3))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(started.writes.calls.map(numbersOf), [[0, 1, 2], [3]])
      yield* assertMetrics(started, { batches: { scheduled: 1 }, flushed: 1, agents: 1, discarded: 3 })
    })
  )

  it.effect("a full queue is folded: a burst loses nothing while there is room", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats({ maxBatchSize: 2, capacity: 3 })
      for (const stats of reports(0, 5_000)) assert.strictEqual(batcher.addUnsafe(stats), 1)
      yield* batcher.flush
      assert.deepStrictEqual(numbersOf(writes.calls.flat()), range(0, 5_000))
      assert.deepInclude(yield* batcher.accounting, { offered: 5_000, dropped: 0, written: 5_000 })
    })
  )

  it.effect("a report that the store would refuse costs no other, and waits apart", () =>
    Effect.gen(function* () {
      const { stats, store } = yield* Store.makeMemory
      const batcher = yield* Effect.provideService(StatsBatcher.make(), Store.Store, store)
      const bad = [
        report(1, { rxPackets: 2n ** 63n }),
        report(3, { connectionsByProto: { "a\0b": 1 } }),
        // From JavaScript.
        report(5, { connectionsByProto: { ssh: "many" as never } }),
        report(7, { userId: undefined as never }),
        report(9, { connectionCount: "many" as never })
      ]
      for (const [index, stats] of bad.entries()) {
        yield* batcher.add(report(2 * index))
        yield* batcher.add(stats)
      }
      assert.deepInclude(yield* batcher.flush, { written: 5, refused: 5 })
      assert.deepStrictEqual(numbersOf(yield* stats), [0, 2, 4, 6, 8])
      assert.deepInclude(yield* batcher.accounting, { written: 5, refused: 5, pending: 0 })
    })
  )

  it.effect(
    "a report that is refused when a search finds it waits apart, and is stored when that is healed",
    () =>
      Effect.gen(function* () {
        const { batcher, stats, writes } = yield* startStats()
        let isBroken = true
        writes.answerAll((rows) =>
          isBroken && rows.some(({ rxBytes }) => rxBytes === 77n)
            ? Effect.fail(Store.rejected(new Error("no such user")))
            : Effect.void
        )
        yield* Effect.forEach(reports(0, 300), batcher.add)
        yield* TestClock.adjust("1 second")
        assert.deepInclude(yield* batcher.accounting, { written: 299, refused: 1 })
        isBroken = false
        yield* TestClock.adjust("10 seconds")
        assert.deepInclude(yield* batcher.accounting, { written: 300, refused: 0 })
        assert.strictEqual(new Set(numbersOf(yield* stats)).size, 300)
      })
  )

  it.effect("a report that is refused for an hour is given up", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats()
      writes.answerAll((rows) => Effect.succeed(refusing(rows.length, [0])))
      for (const stats of reports(0, 2)) yield* batcher.add(stats)
      yield* TestClock.adjust("59 minutes")
      assert.deepInclude(yield* batcher.accounting, { refused: 1, discarded: 0 })
      yield* TestClock.adjust("5 minutes")
      assert.deepInclude(yield* batcher.accounting, { refused: 0, discarded: 1, written: 1 })
    })
  )

  it.effect("refused reports give way, the longest refused first, and before good ones", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* startStats({ maxBatchSize: 10, maxPending: 20 })
      // Two batches, for a flush is due at 8 rows.
      writes.answerAll((rows) =>
        Effect.succeed({
          ...Store.allChanged(rows.length - 1),
          refused: [{ position: 0, why: "the first of each batch" }]
        })
      )
      for (const first of [0, 5]) {
        for (const stats of reports(first, 5)) batcher.addUnsafe(stats)
        yield* batcher.flush
        yield* TestClock.adjust(1)
      }
      assert.deepInclude(yield* batcher.accounting, { written: 8, refused: 2 })
      writes.answerAll(() => down)
      for (const stats of reports(20, 19)) batcher.addUnsafe(stats)
      assert.deepInclude(yield* batcher.accounting, { refused: 1, discarded: 1, dropped: 0 })
      writes.answerAll(() => Effect.void)
      yield* TestClock.adjust("20 seconds")
      const written = numbersOf(writes.succeeded.flat())
      assert.include(written, 5)
      assert.strictEqual(written.filter((number) => number === 0).length, 1)

      writes.answerAll(() => down)
      for (const stats of reports(40, 20)) batcher.addUnsafe(stats)
      assert.deepInclude(yield* batcher.accounting, { refused: 0, discarded: 1, dropped: 0 })
    })
  )

  it.effect("onDiscarded is given what is given up", () =>
    Effect.gen(function* () {
      const given: Array<StatsBatcher.DiscardedStats> = []
      const { batcher, close, writes } = yield* startStats({
        shutdownTimeout: 0,
        onDiscarded: (discarded) => Effect.sync(() => void given.push(...discarded))
      })
      writes.answerAll(() => down)
      yield* Effect.forEach(reports(0, 3), batcher.add)
      yield* close
      assert.deepStrictEqual(
        given.map(({ reason, stats }) => [Number(stats.rxBytes), reason]),
        [
          [0, "unwritten"],
          [1, "unwritten"],
          [2, "unwritten"]
        ]
      )
    })
  )

  it.effect("what is no report is dropped, counted and told", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      const { batcher } = started
      const none: ReadonlyArray<unknown> = [undefined, null, {}, "report", 7]
      yield* batcher.add(report(0))
      for (const stats of none) {
        yield* batcher.add(stats as AgentStats)
        assert.strictEqual(batcher.addUnsafe(stats as AgentStats), 0)
      }
      yield* batcher.add(report(1))
      const { message } = yield* started.logs.next("Warn")
      assert.match(message, /^dropped \d+: not what they should be$/)
      yield* batcher.flush
      assert.deepStrictEqual(started.writes.calls.map(numbersOf), [[0, 1]])
      assert.deepInclude(yield* batcher.accounting, { offered: 12, written: 2, dropped: 10 })
      yield* assertMetrics(started, { batches: { manual: 1 }, flushed: 2, agents: 2, dropped: 10 })
    })
  )
})

describe("Statistics: shutdown", () => {
  it.effect("shutdown drains", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      const { batcher, writes } = started
      const answer = writes.hold()
      for (const stats of reports(0, 1000)) batcher.addUnsafe(stats)
      const early = yield* writes.began
      for (const stats of reports(1000, 3000)) batcher.addUnsafe(stats)
      const closed = yield* Effect.forkChild(started.close, { startImmediately: true })
      // The write under way is awaited, not cancelled.
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(writes.calls.length, 1)
      yield* answer.open
      yield* Fiber.join(closed)
      assert.deepStrictEqual(numbersOf(writes.succeeded.flat()), range(0, 4000))
      assert.isTrue(writes.calls.every(({ length }) => length <= 1024))
      assert.deepInclude(yield* batcher.accounting, { offered: 4000, written: 4000 })
      const shutdown = Math.ceil((4000 - early.length) / 1024)
      yield* assertMetrics(started, { batches: { capacity: 1, shutdown }, flushed: 4000, agents: 4000 })
    })
  )

  it.effect("a store that stays down holds up the shutdown for 15 seconds, and what is lost is counted", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      started.writes.answer(...Array.from({ length: 1000 }, () => down))
      yield* Effect.forEach(reports(0, 3), started.batcher.add)
      const closed = yield* Effect.forkChild(started.close, { startImmediately: true })
      yield* TestClock.adjust(Duration.millis(14_999))
      assert.isUndefined(closed.pollUnsafe())
      yield* TestClock.adjust(Duration.millis(1))
      yield* Fiber.join(closed)
      assert.deepInclude(yield* started.batcher.accounting, { written: 0, pending: 0, discarded: 3 })
      assert.deepStrictEqual(
        started.logs.lines.filter(({ level }) => level === "Error").map(({ message }) => message),
        ["closed with 3 rows unwritten: they are lost"]
      )
    })
  )

  it.effect("add after close is counted as dropped and says so once", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      yield* started.close
      yield* started.batcher.add(report(0))
      assert.strictEqual(started.batcher.addUnsafe(report(1)), 0)
      assert.strictEqual(started.batcher.addUnsafe(undefined as never), 0)
      assert.deepInclude(yield* started.batcher.accounting, { offered: 3, dropped: 3 })
      assert.deepStrictEqual(started.writes.calls, [])
      assert.deepStrictEqual(
        started.logs.lines.filter(({ level }) => level === "Warn").map(({ message }) => message),
        ["StatsBatcher is closed: what is added from now on is dropped"]
      )
    })
  )
})

describe("Statistics: metrics and options", () => {
  it.effect("metrics are those of the metadata batcher, named for statistics", () =>
    Effect.gen(function* () {
      const started = yield* startStats()
      const { batcher, metrics, until, valueOf, writes } = started
      writes.answer(down)
      yield* Effect.forEach(reports(0, 3), batcher.add)
      yield* TestClock.adjust("1 second")
      yield* batcher.add(report(3))
      yield* until(({ queued }) => queued === 0)
      assert.strictEqual((yield* valueOf(metrics.pending)).value, 4)
      assert.strictEqual((yield* valueOf(metrics.oldestPendingAge)).value, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* valueOf(metrics.pending)).value, 0)
      assert.strictEqual((yield* valueOf(metrics.oldestPendingAge)).value, 0)

      const taken = new Set((yield* started.snapshot).map(({ id }) => id))
      assert.deepStrictEqual(
        [
          "agentapi_stats_batch_utilization",
          "agentapi_stats_batch_size",
          "agentapi_stats_flush_duration_seconds",
          "agentapi_stats_batches_total",
          "agentapi_stats_flushed_total",
          "agentapi_stats_write_failures_total",
          "agentapi_stats_queue_depth",
          "agentapi_stats_pending_keys",
          "agentapi_stats_in_flight",
          "agentapi_stats_oldest_pending_age_seconds"
        ].filter((id) => !taken.has(id)),
        []
      )
      assert.isTrue([...taken].every((id) => id.startsWith("agentapi_stats_")))
      const { buckets } = yield* valueOf(metrics.batchSize)
      assert.deepStrictEqual(
        buckets.map(([boundary]) => boundary).slice(0, statsBatchSizeBoundaries.length),
        [10, 25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1024]
      )
    })
  )

  const invalid: ReadonlyArray<readonly [option: keyof StatsBatcher.Options, options: StatsBatcher.Options]> =
    [
      ["maxBatchSize", { maxBatchSize: 0 }],
      ["maxBatchSize", { maxBatchSize: Number.NaN }],
      ["interval", { interval: 0 }],
      ["capacity", { capacity: 1023 }],
      ["maxPending", { maxPending: 1023 }],
      ["shutdownTimeout", { shutdownTimeout: "-1 second" }],
      ["writeTimeout", { writeTimeout: "-1 second" }],
      ["writeConcurrency", { writeConcurrency: 1.5 }],
      ["onWriteFailure", { onWriteFailure: "retry" as never }],
      ["metricsPrefix", { metricsPrefix: "agent api" }]
    ]

  it.effect.each(invalid)("refuses %o", ([option, options]) =>
    Effect.gen(function* () {
      const layer = StatsBatcher.layer(options).pipe(Layer.provide(Store.layerMemory))
      const error = yield* Effect.flip(Layer.build(layer))
      assert.deepInclude(error, { _tag: "InvalidOptionError", option })
    })
  )

  const build = <E>(layer: Layer.Layer<StatsBatcher.StatsBatcher, E, Store.Store>) =>
    Effect.map(Layer.build(layer.pipe(Layer.provide(Store.layerMemory))), (context) =>
      Context.get(context, StatsBatcher.StatsBatcher)
    )

  it.effect("layerConfig reads its options from the configuration", () =>
    Effect.gen(function* () {
      const config = ConfigProvider.layer(ConfigProvider.fromUnknown({ batch: "2", interval: "1 minute" }))
      const batcher = yield* build(
        StatsBatcher.layerConfig({
          maxBatchSize: Config.Int("batch"),
          interval: Config.Duration("interval"),
          capacity: Config.Int("capacity").pipe(Config.withDefault(3))
        }).pipe(Layer.provide(config))
      )
      assert.deepStrictEqual(reports(0, 3).map(batcher.addUnsafe), [1, 1, 1])
      yield* TestClock.adjust("59 seconds")
      assert.deepInclude(yield* batcher.accounting, { written: 2, pending: 1 })
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* batcher.accounting, { written: 3, pending: 0 })
    })
  )

  it.effect("layerConfig refuses what layer refuses, and what it cannot read", () =>
    Effect.gen(function* () {
      const config = ConfigProvider.layer(ConfigProvider.fromUnknown({ batch: "-2" }))
      const errorOf = (options: Config.Wrap<StatsBatcher.Options>) =>
        Effect.flip(build(StatsBatcher.layerConfig(options).pipe(Layer.provide(config))))
      assert.deepInclude(yield* errorOf({ maxBatchSize: Config.Int("batch") }), { option: "maxBatchSize" })
      assert.deepInclude(yield* errorOf({ maxBatchSize: Config.Int("none") }), { _tag: "ConfigError" })
    })
  )
})
