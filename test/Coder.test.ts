/**
 * What this library shares with Coder's `metadatabatcher` and `batchstats` as of
 * version 2.31, so that either side reads what the other writes and its
 * dashboards go on working.
 */
import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as TestClock from "effect/testing/TestClock"
import { AgentId } from "../src/AgentId.ts"
import * as AgentIdChunks from "../src/AgentIdChunks.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"

const agentIdOf = (i: number) => AgentId.make(`00000000-0000-4000-8000-${i.toString(16).padStart(12, "0")}`)

const Memory = Layer.merge(Store.layerMemory, Pubsub.layerMemory)

/** Adds reports of ten facts, each of another agent. */
const addReports = Effect.fnUntraced(function* (count: number) {
  const batcher = yield* MetadataBatcher.MetadataBatcher
  const collectedAt = yield* DateTime.now
  for (let i = 0; i < count; i++) {
    const facts = Array.from({ length: 10 }, (_, key) => ({
      key: `${key}`,
      value: "",
      error: "",
      collectedAt
    }))
    yield* batcher.add(agentIdOf(i), facts)
  }
})

const addStats = Effect.fnUntraced(function* (count: number) {
  const batcher = yield* StatsBatcher.StatsBatcher
  for (let i = 0; i < count; i++) yield* batcher.add(makeStats({ agentId: agentIdOf(i) }))
})

type Account = { readonly accounting: Effect.Effect<{ readonly written: number }> }

/** How much has been written, so many milliseconds later. */
const writtenAfter = Effect.fnUntraced(function* ({ accounting }: Account, millis: number) {
  yield* TestClock.adjust(millis)
  return (yield* accounting).written
})

describe("as of Coder 2.31", () => {
  it("notifications hold up to 363 ids of 22 characters, in base64 without padding, on the same channel", () => {
    assert.strictEqual(MetadataBatcher.metadataBatchChannel, "workspace_agent_metadata_batch")
    assert.strictEqual(AgentIdChunks.uuidBase64Size, 22)
    assert.strictEqual(AgentIdChunks.maxPayloadSize, 8_000)
    assert.strictEqual(AgentIdChunks.maxAgentIdsPerChunk, 363)
    const ids = Array.from({ length: 364 }, (_, i) => agentIdOf(i))
    const base64 = ids.map((id) => Buffer.from(id.replaceAll("-", ""), "hex").toString("base64").slice(0, 22))
    assert.deepStrictEqual(AgentIdChunks.encode(ids), [
      base64.slice(0, 363).join(""),
      base64.slice(363).join("")
    ])
  })

  it.effect("500 keys are written at once, fewer every 5 seconds", () =>
    Effect.gen(function* () {
      const batcher = yield* MetadataBatcher.MetadataBatcher
      yield* addReports(49)
      assert.strictEqual(yield* writtenAfter(batcher, 4_999), 0)
      assert.strictEqual(yield* writtenAfter(batcher, 1), 490)
      yield* addReports(50)
      assert.strictEqual(yield* writtenAfter(batcher, 0), 990)
    }).pipe(Effect.provide(Layer.provide(MetadataBatcher.layer(), Memory)))
  )

  it.effect("820 rows of statistics, 80 % of 1,024, are written at once, fewer every second", () =>
    Effect.gen(function* () {
      const batcher = yield* StatsBatcher.StatsBatcher
      yield* addStats(819)
      assert.strictEqual(yield* writtenAfter(batcher, 999), 0)
      assert.strictEqual(yield* writtenAfter(batcher, 1), 819)
      yield* addStats(820)
      assert.strictEqual(yield* writtenAfter(batcher, 0), 1_639)
    }).pipe(Effect.provide(Layer.provide(StatsBatcher.layer(), Memory)))
  )

  it.effect("its dashboards find the metrics of metadata by their names, buckets and reasons", () =>
    Effect.gen(function* () {
      yield* addReports(1)
      yield* (yield* MetadataBatcher.MetadataBatcher).flush
      const text = yield* PrometheusMetrics.format()
      const valuesOf = (series: string, label: string) => {
        const lines = text
          .split("\n")
          .filter((line) => line.startsWith(`coderd_agentapi_metadata_${series}{`))
        return Array.from(new Set(lines.map((line) => new RegExp(`${label}="([^"]*)"`).exec(line)?.[1])))
      }
      assert.deepStrictEqual(valuesOf("batch_utilization_bucket", "le"), [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "15",
        "20",
        "40",
        "80",
        "160",
        "+Inf"
      ])
      assert.deepStrictEqual(valuesOf("batch_size_bucket", "le"), [
        "10",
        "25",
        "50",
        "100",
        "150",
        "200",
        "250",
        "300",
        "350",
        "400",
        "450",
        "500",
        "+Inf"
      ])
      assert.deepStrictEqual(valuesOf("flush_duration_seconds_bucket", "le"), [
        "0.01",
        "0.025",
        "0.05",
        "0.1",
        "0.25",
        "0.5",
        "1",
        "2.5",
        "5",
        "+Inf"
      ])
      assert.includeMembers(valuesOf("flush_duration_seconds_bucket", "reason"), ["manual"])
      assert.includeMembers(valuesOf("batches_total", "reason"), ["capacity", "scheduled", "shutdown"])
      for (const name of ["dropped_keys_total", "flushed_total", "publish_errors_total"]) {
        assert.match(text, new RegExp(`^coderd_agentapi_metadata_${name} \\d+$`, "m"))
      }
    }).pipe(
      Effect.provide(Layer.provide(MetadataBatcher.layer({ metricsPrefix: "coderd_agentapi" }), Memory)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )
})
