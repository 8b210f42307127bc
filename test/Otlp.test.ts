/**
 * Telemetry over OTLP/HTTP through what `effect` itself carries, to a receiver
 * that decodes it: nothing of OpenTelemetry's SDK is needed for that.
 */
import { createServer } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Otlp from "effect/observability/Otlp"
import { flushDurationBoundaries } from "../src/BatcherMetrics.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, facts } from "./support/Fakes.ts"

type Attributes = ReadonlyArray<{ readonly key: string; readonly value: Record<string, unknown> }>

interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly attributes: Attributes
  readonly links?: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
}

interface LogRecord {
  readonly body: { readonly stringValue?: string }
  readonly attributes: Attributes
  readonly traceId?: string
}

interface MetricData {
  readonly name: string
  readonly unit: string
  readonly sum?: {
    readonly dataPoints: ReadonlyArray<{ readonly asDouble: number }>
    readonly isMonotonic: boolean
  }
  readonly histogram?: {
    readonly dataPoints: ReadonlyArray<{
      readonly attributes: Attributes
      readonly count: number | string
      readonly explicitBounds: ReadonlyArray<number>
    }>
  }
}

interface OfResource {
  readonly resource: { readonly attributes: Attributes }
}

/** What one request carries. */
interface Body {
  readonly resourceSpans?: ReadonlyArray<
    OfResource & { readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }> }
  >
  readonly resourceMetrics?: ReadonlyArray<
    OfResource & { readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<MetricData> }> }
  >
  readonly resourceLogs?: ReadonlyArray<
    OfResource & { readonly scopeLogs: ReadonlyArray<{ readonly logRecords: ReadonlyArray<LogRecord> }> }
  >
}

interface Received {
  readonly services: Set<unknown>
  readonly spans: Array<Span>
  readonly logs: Array<LogRecord>
  /** By name, as last received. */
  readonly metrics: Map<string, MetricData>
}

const attributeOf = ({ attributes }: { readonly attributes: Attributes }, key: string): unknown =>
  Object.values(attributes.find((attribute) => attribute.key === key)?.value ?? {})[0]

/** A receiver of OTLP/HTTP in JSON, and what it has received. */
const receiver = Effect.acquireRelease(
  Effect.callback<{ readonly url: string; readonly received: Received; readonly close: () => void }>(
    (resume) => {
      const received: Received = { services: new Set(), spans: [], logs: [], metrics: new Map() }
      const take = ({ resourceLogs = [], resourceMetrics = [], resourceSpans = [] }: Body) => {
        for (const { resource } of [...resourceLogs, ...resourceMetrics, ...resourceSpans]) {
          received.services.add(attributeOf(resource, "service.name"))
        }
        for (const { scopeSpans } of resourceSpans) {
          for (const { spans } of scopeSpans) received.spans.push(...spans)
        }
        for (const { scopeLogs } of resourceLogs) {
          for (const { logRecords } of scopeLogs) received.logs.push(...logRecords)
        }
        for (const { scopeMetrics } of resourceMetrics) {
          for (const metric of scopeMetrics.flatMap(({ metrics }) => metrics)) {
            received.metrics.set(metric.name, metric)
          }
        }
      }
      const server = createServer(async (request, response) => {
        const chunks: Array<Buffer> = []
        for await (const chunk of request) chunks.push(chunk)
        take(JSON.parse(Buffer.concat(chunks).toString()))
        response.setHeader("content-type", "application/json").end("{}")
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" ? address?.port : undefined
        const close = () => {
          server.closeAllConnections()
          server.close()
        }
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, received, close }))
      })
    }
  ),
  ({ close }) => Effect.sync(close)
)

describe("OTLP", () => {
  it.live("gets spans, metrics and log lines of both batchers, those of the last flush too", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver
      const Telemetry = Otlp.layerJson({ baseUrl: url, resource: { serviceName: "fleet" } }).pipe(
        Layer.provide(FetchHttpClient.layer),
        Layer.provideMerge(Layer.sync(Metric.MetricRegistry, () => new Map()))
      )
      const Batchers = Layer.mergeAll(
        MetadataBatcher.layer({ maxBatchSize: 4, capacity: 4, maxPending: 4 }),
        StatsBatcher.layer()
      ).pipe(Layer.provide([Store.layerMemory, Pubsub.layerMemory]))

      yield* Effect.gen(function* () {
        const metadata = yield* MetadataBatcher.MetadataBatcher
        const stats = yield* StatsBatcher.StatsBatcher
        yield* Effect.withSpan(metadata.add(agentIdOf(1), facts(2)), "request 1")
        yield* metadata.flush
        // One is dropped; the others are written when everything closes.
        yield* Effect.withSpan(metadata.add(agentIdOf(2), facts(5)), "request 2")
        yield* Effect.withSpan(stats.add(makeStats({ agentId: agentIdOf(3) })), "request 3")
      }).pipe(Effect.provide(Batchers), Effect.provide(Telemetry))

      assert.deepStrictEqual([...received.services], ["fleet"])

      const named = (name: string) => received.spans.filter((span) => span.name === name)
      const idsOf = ({ spanId, traceId }: Pick<Span, "spanId" | "traceId">) => ({ traceId, spanId })
      const flushes = [...named("MetadataBatcher.flush"), ...named("StatsBatcher.flush")]
      assert.deepStrictEqual(
        flushes.map((span) => [
          span.name,
          span.parentSpanId,
          attributeOf(span, "batcher.flush.reason"),
          Number(attributeOf(span, "batcher.rows.written")),
          span.links?.map(idsOf)
        ]),
        [
          ["MetadataBatcher.flush", undefined, "manual", 2, named("request 1").map(idsOf)],
          ["MetadataBatcher.flush", undefined, "shutdown", 4, named("request 2").map(idsOf)],
          ["StatsBatcher.flush", undefined, "shutdown", 1, named("request 3").map(idsOf)]
        ]
      )
      for (const flush of flushes) {
        const children = received.spans.filter(({ parentSpanId }) => parentSpanId === flush.spanId)
        assert.deepStrictEqual(
          children.map(({ name }) => name.split(".")[1]),
          flush.name === "MetadataBatcher.flush" ? ["write", "publish"] : ["write"]
        )
      }

      const sumOf = (name: string) =>
        received.metrics.get(name)?.sum?.dataPoints.map(({ asDouble }) => asDouble)
      assert.deepStrictEqual(sumOf("agentapi_metadata_flushed_total"), [6])
      assert.deepStrictEqual(sumOf("agentapi_metadata_dropped_keys_total"), [1])
      assert.deepStrictEqual(sumOf("agentapi_stats_flushed_total"), [1])
      const duration = received.metrics.get("agentapi_metadata_flush_duration_seconds")
      assert.strictEqual(duration?.unit, "s")
      assert.deepStrictEqual(
        duration?.histogram?.dataPoints.map((point) => [
          attributeOf(point, "reason"),
          Number(point.count),
          point.explicitBounds
        ]),
        [
          ["manual", 1, flushDurationBoundaries],
          ["shutdown", 1, flushDurationBoundaries]
        ]
      )

      const dropped = received.logs.find(({ body }) => body.stringValue === "dropped 1: no room")
      assert.isDefined(dropped)
      assert.strictEqual(dropped && attributeOf(dropped, "batcher"), "MetadataBatcher")
    }).pipe(Effect.scoped)
  )
})
