/** The metrics as Prometheus reads them, name by name and bucket by bucket. */
import { assert, describe, it } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as TestClock from "effect/testing/TestClock"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, fact, facts, refusing, start } from "./support/Fakes.ts"

const utilization = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 40, 80, 160]
const sizes = [10, 25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500]
const statsSizes = [...sizes, 600, 700, 800, 900, 1024]
const seconds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/** Type and samples of each metric, by its name. */
const parse = (text: string): Record<string, ReadonlyArray<string>> => {
  const metrics: Record<string, Array<string>> = {}
  let described = ""
  let current: Array<string> = []
  for (const line of text.trimEnd().split("\n")) {
    const [, name = "", type = ""] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? []
    if (name !== "") {
      assert.notProperty(metrics, name)
      assert.strictEqual(described, name)
      current = metrics[name] = [type]
    } else if (line.startsWith("# HELP ")) {
      described = /^# HELP (\S+) \S/.exec(line)?.[1] ?? ""
    } else {
      current.push(line)
    }
  }
  return metrics
}

/** A histogram that was given these values. */
const histogram = (
  name: string,
  boundaries: ReadonlyArray<number>,
  values: ReadonlyArray<number>,
  reason?: string
): ReadonlyArray<string> => {
  const labels = (...le: ReadonlyArray<number | string>) => {
    const all = [reason === undefined ? [] : `reason="${reason}"`, le.map((le) => `le="${le}"`)].flat()
    return all.length === 0 ? "" : `{${all.join(",")}}`
  }
  return [
    ...boundaries.map((le) => `${name}_bucket${labels(le)} ${values.filter((value) => value <= le).length}`),
    `${name}_bucket${labels("+Inf")} ${values.length}`,
    `${name}_sum${labels()} ${values.reduce((sum, value) => sum + value, 0)}`,
    `${name}_count${labels()} ${values.length}`
  ]
}

const byReason = (name: string, counts: Record<string, number>): ReadonlyArray<string> =>
  Object.entries(counts).map(([reason, count]) => `${name}{reason="${reason}"} ${count}`)

describe("metrics", () => {
  it.effect("of a batcher that has done nothing count from zero", () =>
    Effect.gen(function* () {
      const { scrape } = yield* start()
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(parse(yield* scrape), {
        agentapi_metadata_batches_total: [
          "counter",
          ...byReason("agentapi_metadata_batches_total", {
            capacity: 0,
            scheduled: 0,
            shutdown: 0,
            manual: 0
          })
        ],
        agentapi_metadata_dropped_keys_total: ["counter", "agentapi_metadata_dropped_keys_total 0"],
        agentapi_metadata_flushed_total: ["counter", "agentapi_metadata_flushed_total 0"],
        agentapi_metadata_publish_errors_total: ["counter", "agentapi_metadata_publish_errors_total 0"],
        agentapi_metadata_superseded_total: ["counter", "agentapi_metadata_superseded_total 0"],
        agentapi_metadata_unchanged_total: ["counter", "agentapi_metadata_unchanged_total 0"],
        agentapi_metadata_discarded_total: ["counter", "agentapi_metadata_discarded_total 0"],
        agentapi_metadata_dated_ahead_total: ["counter", "agentapi_metadata_dated_ahead_total 0"],
        agentapi_metadata_write_failures_total: [
          "counter",
          ...byReason("agentapi_metadata_write_failures_total", { Unavailable: 0, Rejected: 0, Canceled: 0 })
        ],
        agentapi_metadata_queue_depth: ["gauge", "agentapi_metadata_queue_depth 0"],
        agentapi_metadata_pending_keys: ["gauge", "agentapi_metadata_pending_keys 0"],
        agentapi_metadata_in_flight: ["gauge", "agentapi_metadata_in_flight 0"],
        agentapi_metadata_refused_keys: ["gauge", "agentapi_metadata_refused_keys 0"],
        agentapi_metadata_pending_bytes: ["gauge", "agentapi_metadata_pending_bytes 0"],
        agentapi_metadata_unannounced_agents: ["gauge", "agentapi_metadata_unannounced_agents 0"],
        agentapi_metadata_oldest_pending_age_seconds: [
          "gauge",
          "agentapi_metadata_oldest_pending_age_seconds 0"
        ]
      })
    })
  )

  it.effect("say what happened", () =>
    Effect.gen(function* () {
      const { batcher, metrics, publishes, scrape, until, valueOf, writes } = yield* start({
        maxBatchSize: 12,
        capacity: 12
      })

      // A batch of 8 rows in 30 ms, after one fact was superseded.
      writes.answer(Effect.sleep("30 millis"))
      yield* batcher.add(agentIdOf(1), facts(3))
      yield* batcher.add(agentIdOf(2), facts(5))
      yield* batcher.add(agentIdOf(1), [fact("key 0", "newer", 1)])
      yield* TestClock.adjust("5030 millis")
      yield* until(({ written }) => written === 8)

      // One row, whose notification fails.
      publishes.answer(Effect.fail(Pubsub.unavailable(new Error("down"))))
      yield* batcher.add(agentIdOf(3), facts(1))
      yield* batcher.flush

      // Two rows, one of which is refused.
      writes.answer(Effect.succeed(refusing(2, [0])))
      yield* batcher.add(agentIdOf(4), facts(2))
      yield* batcher.flush

      // A fact dated too far ahead and one that is none, then as many as a batch.
      const odd = [fact("key 0", "", 3_600_000), undefined as never, ...facts(12).slice(1)]
      assert.strictEqual(batcher.addUnsafe(agentIdOf(5), odd), 12)
      yield* until(({ written }) => written === 22)

      // Two rows that could not be written at first and are now in their second write.
      writes.answer(Effect.fail(Store.unavailable(new Error("down"))))
      const second = writes.hold()
      yield* batcher.add(agentIdOf(6), facts(2))
      yield* batcher.flush
      yield* TestClock.adjust("900 millis")
      assert.strictEqual((yield* batcher.accounting).inFlight, 2)
      yield* TestClock.adjust("100 millis")

      // One waits behind them, and four come later.
      yield* batcher.add(agentIdOf(7), facts(1))
      yield* until(({ pending }) => pending === 1)
      yield* TestClock.adjust("1500 millis")
      const queueDepth = yield* Effect.suspend(() => {
        batcher.addUnsafe(agentIdOf(8), facts(4))
        return valueOf(metrics.queueDepth)
      })
      assert.strictEqual(queueDepth.value, 4)
      yield* until(({ queued }) => queued === 0)

      assert.deepStrictEqual(parse(yield* scrape), {
        agentapi_metadata_batch_utilization: [
          "histogram",
          ...histogram("agentapi_metadata_batch_utilization", utilization, [3, 5, 1, 1, 12])
        ],
        agentapi_metadata_batch_size: [
          "histogram",
          ...histogram("agentapi_metadata_batch_size", sizes, [8, 1, 1, 12])
        ],
        agentapi_metadata_flush_duration_seconds: [
          "histogram",
          ...histogram("agentapi_metadata_flush_duration_seconds", seconds, [0.03], "scheduled"),
          ...histogram("agentapi_metadata_flush_duration_seconds", seconds, [0, 0], "manual"),
          ...histogram("agentapi_metadata_flush_duration_seconds", seconds, [0], "capacity")
        ],
        agentapi_metadata_batches_total: [
          "counter",
          ...byReason("agentapi_metadata_batches_total", {
            capacity: 1,
            scheduled: 1,
            shutdown: 0,
            manual: 2
          })
        ],
        agentapi_metadata_dropped_keys_total: ["counter", "agentapi_metadata_dropped_keys_total 1"],
        agentapi_metadata_flushed_total: ["counter", "agentapi_metadata_flushed_total 22"],
        agentapi_metadata_publish_errors_total: ["counter", "agentapi_metadata_publish_errors_total 1"],
        agentapi_metadata_superseded_total: ["counter", "agentapi_metadata_superseded_total 1"],
        agentapi_metadata_unchanged_total: ["counter", "agentapi_metadata_unchanged_total 0"],
        agentapi_metadata_discarded_total: ["counter", "agentapi_metadata_discarded_total 0"],
        agentapi_metadata_dated_ahead_total: ["counter", "agentapi_metadata_dated_ahead_total 1"],
        agentapi_metadata_write_failures_total: [
          "counter",
          ...byReason("agentapi_metadata_write_failures_total", { Unavailable: 1, Rejected: 0, Canceled: 0 })
        ],
        agentapi_metadata_queue_depth: ["gauge", "agentapi_metadata_queue_depth 0"],
        agentapi_metadata_pending_keys: ["gauge", "agentapi_metadata_pending_keys 5"],
        agentapi_metadata_in_flight: ["gauge", "agentapi_metadata_in_flight 2"],
        agentapi_metadata_refused_keys: ["gauge", "agentapi_metadata_refused_keys 1"],
        // Eight keys of five characters.
        agentapi_metadata_pending_bytes: ["gauge", "agentapi_metadata_pending_bytes 80"],
        agentapi_metadata_unannounced_agents: ["gauge", "agentapi_metadata_unannounced_agents 0"],
        agentapi_metadata_oldest_pending_age_seconds: [
          "gauge",
          // Of those in the write, which came a second before the one behind them.
          "agentapi_metadata_oldest_pending_age_seconds 2.5"
        ]
      })
      yield* second.open
    })
  )

  it.effect("put a value that equals a boundary into its bucket", () =>
    Effect.gen(function* () {
      const { batcher, scrape } = yield* start()
      for (let agent = 0; agent < 50; agent++) yield* batcher.add(agentIdOf(agent), facts(10))
      yield* batcher.flush
      const metrics = parse(yield* scrape)
      const batchSizes = metrics["agentapi_metadata_batch_size"] ?? []
      assert.include(batchSizes, 'agentapi_metadata_batch_size_bucket{le="450"} 0')
      assert.include(batchSizes, 'agentapi_metadata_batch_size_bucket{le="500"} 1')
      assert.deepStrictEqual(metrics["agentapi_metadata_batch_utilization"], [
        "histogram",
        ...histogram("agentapi_metadata_batch_utilization", utilization, Array(50).fill(10))
      ])
    })
  )

  it.effect("count a batch that was written though its notification never ended, and that as failed", () =>
    Effect.gen(function* () {
      const { batcher, close, logs, metrics, publishes, until, valueOf } = yield* start({
        shutdownTimeout: "2 seconds"
      })
      publishes.answer(Effect.never)
      yield* batcher.add(agentIdOf(1), facts(3))
      yield* TestClock.adjust("5 seconds")
      yield* until(({ written }) => written === 3)
      const closed = yield* Effect.forkChild(close, { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(closed)
      const batches = Metric.withAttributes(metrics.batches, { reason: "scheduled" })
      assert.strictEqual((yield* valueOf(batches)).count, 1)
      assert.strictEqual((yield* valueOf(metrics.batchSize)).count, 1)
      assert.strictEqual((yield* valueOf(metrics.publishErrors)).count, 1)
      assert.deepInclude((yield* logs.next("Warn")).annotations, {
        count: 1,
        error: "the batcher closed before it was published"
      })
    })
  )

  it.effect("tell how long a key has not been written, updated and tried as it may be meanwhile", () =>
    Effect.gen(function* () {
      const { batcher, metrics, until, valueOf, writes } = yield* start({ writeTimeout: "10 seconds" })
      const age = Effect.map(valueOf(metrics.oldestPendingAge), ({ value }) => value)
      writes.answer(Effect.never)
      writes.answerAll(() => Effect.fail(Store.unavailable(new Error("server is shutting down"))))
      // The first write begins at 5 s and hangs until 15 s; then each is refused.
      for (let second = 0; second < 60; second++) {
        yield* batcher.add(agentIdOf(1), [fact("old", "", second)])
        if (second === 30) yield* batcher.add(agentIdOf(2), [fact("new", "")])
        yield* until(({ queued }) => queued === 0)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* age, second + 1)
      }
      assert.isAtLeast(writes.calls.length, 10)
      writes.answerAll(() => Effect.void)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* age, 0)
      yield* batcher.add(agentIdOf(1), [fact("old", "", 60)])
      yield* until(({ pending }) => pending === 1)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* age, 2)
    })
  )

  it.effect(
    "tell how long the longest waiting key has waited, whatever other keys its agent reports since",
    () =>
      Effect.gen(function* () {
        const { batcher, metrics, valueOf } = yield* start({ interval: "1 minute" })
        for (const [index, key] of ["a", "b", "c"].entries()) {
          yield* batcher.add(agentIdOf(1), [fact(key, "")])
          yield* TestClock.adjust("3 seconds")
          assert.strictEqual((yield* valueOf(metrics.oldestPendingAge)).value, 3 * (index + 1))
        }
      })
  )

  it.effect("show a gauge as it is when read, and none of a batcher that is closed", () =>
    Effect.gen(function* () {
      const { batcher, close, scrape, until } = yield* start()
      yield* batcher.add(agentIdOf(1), facts(2))
      yield* until(({ pending }) => pending === 2)
      const age = Effect.map(
        scrape,
        (text) => /^agentapi_metadata_oldest_pending_age_seconds (.+)$/m.exec(text)?.[1]
      )
      assert.strictEqual(yield* age, "0")
      yield* TestClock.adjust("1250 millis")
      assert.strictEqual(yield* age, "1.25")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* age, "3.25")
      yield* close
      const metrics = parse(yield* scrape)
      assert.notInclude(
        Object.values(metrics).map(([type]) => type),
        "gauge"
      )
      assert.deepStrictEqual(metrics["agentapi_metadata_flushed_total"], [
        "counter",
        "agentapi_metadata_flushed_total 2"
      ])
    })
  )

  it.effect("of both batchers stand side by side under one prefix", () =>
    Effect.gen(function* () {
      const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()
      const { store } = yield* Store.makeMemory
      const metrics = yield* Effect.gen(function* () {
        const options = { metricsPrefix: "coderd_agentapi" }
        const metadata = yield* MetadataBatcher.make(options)
        const stats = yield* StatsBatcher.make(options)
        yield* metadata.add(agentIdOf(1), facts(3))
        for (let agent = 0; agent < 801; agent++) yield* stats.add(makeStats({ agentId: agentIdOf(agent) }))
        yield* metadata.flush
        yield* stats.flush
        return parse(yield* PrometheusMetrics.format())
      }).pipe(
        Effect.provideService(Metric.MetricRegistry, registry),
        Effect.provideService(Store.Store, store),
        Effect.provide(Pubsub.layerMemory)
      )

      const ofKind = (kind: string) =>
        Object.keys(metrics).filter((name) => name.startsWith(`coderd_agentapi_${kind}_`))
      assert.strictEqual(ofKind("metadata").length, 19)
      assert.deepStrictEqual(
        ofKind("stats"),
        ofKind("metadata").map((name) => name.replace("_metadata_", "_stats_"))
      )
      assert.strictEqual(Object.keys(metrics).length, 38)
      assert.deepStrictEqual(metrics["coderd_agentapi_metadata_batch_size"], [
        "histogram",
        ...histogram("coderd_agentapi_metadata_batch_size", sizes, [3])
      ])
      assert.deepStrictEqual(metrics["coderd_agentapi_stats_batch_size"], [
        "histogram",
        ...histogram("coderd_agentapi_stats_batch_size", statsSizes, [801])
      ])
    })
  )
})
