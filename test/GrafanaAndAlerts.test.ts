/** The dashboard and the alert rules ask for what the code exports. */
import * as fs from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Yaml from "effect/encoding/Yaml"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Schema from "effect/Schema"
import * as PubsubMeters from "../src/internal/pubsub/meters.ts"
import * as WatcherMeters from "../src/internal/watcher/meters.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as RetentionMetrics from "../src/RetentionMetrics.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import * as WatcherMetrics from "../src/WatcherMetrics.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, facts } from "./support/Fakes.ts"

const read = (file: string) =>
  fs.readFileSync(new URL(`../scripts/telemetry/${file}`, import.meta.url), "utf8")

/** What is exported: the values of each label, by the name of the series. */
type Exported = Map<string, Map<string, Set<string>>>

const touchRetention = Effect.gen(function* () {
  const metrics = RetentionMetrics.make({ prefix: "agentapi" })
  yield* Metric.update(metrics.droppedPartitions, 0)
  yield* Metric.update(metrics.madePartitions, 0)
  yield* Metric.update(metrics.lag, 0)
  for (const table of ["stats", "metadata"]) {
    for (const counter of [metrics.deletedRows, metrics.failures]) {
      yield* Metric.update(Metric.withAttributes(counter, { table }), 0)
    }
    yield* Metric.update(Metric.withAttributes(metrics.statementDuration, { table }), 0.001)
  }
})

const exported: Effect.Effect<Exported> = Effect.gen(function* () {
  const { store } = yield* Store.makeMemory
  const text = yield* Effect.gen(function* () {
    const metadata = yield* MetadataBatcher.make()
    const stats = yield* StatsBatcher.make()
    yield* metadata.add(agentIdOf(1), facts(1))
    yield* stats.add(makeStats({ agentId: agentIdOf(1) }))
    yield* metadata.flush
    yield* stats.flush
    const pubsub = yield* PubsubMeters.make("agentapi")
    pubsub.delivered(0.001)
    const zero = () => 0
    const gauges = { watchers: zero, agents: zero, subscribed: zero, stale: zero }
    const watcher = yield* WatcherMeters.make(WatcherMetrics.make({ prefix: "agentapi" }), gauges)
    watcher.read(1, 0.001)
    watcher.delayed(0.001)
    yield* touchRetention
    return yield* PrometheusMetrics.format()
  }).pipe(
    Effect.scoped,
    Effect.orDie,
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(Store.Store, store),
    Effect.provide(Pubsub.layerMemory)
  )
  const series: Exported = new Map()
  for (const [, name = "", labels = ""] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
    const known = series.get(name) ?? new Map<string, Set<string>>()
    series.set(name, known)
    for (const [, label = "", value = ""] of labels.matchAll(/(\w+)="([^"]*)"/g)) {
      known.set(label, (known.get(label) ?? new Set()).add(value))
    }
  }
  return series
})

// Prometheus itself adds these to every series it scrapes.
const scraped = ["job", "instance"]

// Exporters of OTLP leave the unit among the attributes of what they send.
const added = [...scraped, "unit"]

/** The series an expression asks for; fails where it asks for what is not exported. */
const check = (expression: string, series: Exported): ReadonlyArray<string> => {
  const of = `in ${expression}`
  // Strings hold what is no name.
  const matchers = [...expression.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g)]
  const bare = expression.replaceAll(/"[^"]*"/g, '""')
  const words = bare.replaceAll(/\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)/g, " ")
  const names = [...words.matchAll(/\b(?!(?:and|or|unless)\b)[a-z_]\w*\b(?!\s*\()/gi)].map(([name]) => name)
  assert.isNotEmpty(names, of)
  for (const name of names) assert.isTrue(series.has(name), `${name} ${of}`)
  for (const [open, close] of ["()", "{}", "[]"]) {
    assert.strictEqual(bare.split(open ?? "").length, bare.split(close ?? "").length, of)
  }
  const valuesOf = (label: string) => names.flatMap((name) => [...(series.get(name)?.get(label) ?? [])])
  for (const [, label = "", operator, value = ""] of matchers) {
    if (scraped.includes(label)) continue
    assert.include(["=", "!="], operator, of)
    assert.include(valuesOf(label), value, of)
  }
  const grouped = [...bare.matchAll(/\b(?:by|without|on|ignoring)\s*\(([^)]*)\)/g)]
  for (const label of grouped.flatMap(([, list = ""]) => list.split(",").map((label) => label.trim()))) {
    if (!added.includes(label)) assert.isNotEmpty(valuesOf(label), `${label} ${of}`)
  }
  return names
}

const baseOf = (name: string) => name.replace(/_(bucket|sum|count)$/, "")

const Dashboard = Schema.Struct({
  templating: Schema.Struct({
    list: Schema.Array(Schema.Struct({ name: Schema.String, query: Schema.Unknown }))
  }),
  panels: Schema.Array(
    Schema.Struct({
      id: Schema.Number,
      title: Schema.String,
      fieldConfig: Schema.Struct({
        defaults: Schema.Struct({
          thresholds: Schema.optional(Schema.Struct({ steps: Schema.Array(Schema.Unknown) }))
        })
      }),
      options: Schema.Struct({ colorMode: Schema.optional(Schema.String) }),
      targets: Schema.Array(Schema.Struct({ expr: Schema.String, legendFormat: Schema.String }))
    })
  )
})

const Alerts = Schema.Struct({
  groups: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      rules: Schema.Array(
        Schema.Struct({
          alert: Schema.String,
          expr: Schema.String,
          for: Schema.String,
          labels: Schema.Struct({ severity: Schema.Literals(["warning", "critical"]) }),
          annotations: Schema.Struct({ summary: Schema.String, description: Schema.String })
        })
      )
    })
  )
})

describe("the dashboard", () => {
  const dashboard = Schema.decodeUnknownSync(Dashboard)(JSON.parse(read("grafana-dashboard.json")))
  const inserted = (text: string, kind: string) =>
    text.replaceAll(/\$\{prefix\}/g, "agentapi").replaceAll(/\$\{kind\}/g, kind)

  for (const kind of ["metadata", "stats"]) {
    it.effect(`shows every metric of ${kind}, and none that is not exported`, () =>
      Effect.gen(function* () {
        const series = yield* exported
        const shown = new Set<string>()
        for (const { targets } of dashboard.panels) {
          for (const { expr, legendFormat } of targets) {
            const names = check(inserted(expr, kind), series)
            for (const name of names) shown.add(baseOf(name))
            for (const [, label = ""] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
              assert.match(expr, new RegExp(`by \\([^)]*\\b${label}\\b`))
            }
          }
        }
        const families = [kind, "pubsub", "watcher", "retention"]
        const all = new Set(
          [...series.keys()]
            .filter((name) => families.some((family) => name.startsWith(`agentapi_${family}_`)))
            .map(baseOf)
        )
        assert.deepStrictEqual([...shown].sort(), [...all].sort())
        assert.strictEqual(shown.size, 19 + 8 + 10 + 6)
      })
    )
  }

  it("colours nothing by thresholds that it does not set: Grafana's own are red from 80 on", () => {
    for (const { fieldConfig, options, title } of dashboard.panels) {
      if (options.colorMode === undefined || options.colorMode === "none") continue
      assert.isDefined(fieldConfig.defaults.thresholds, title)
    }
  })

  it.effect("asks for its variables where they are, and names each panel once", () =>
    Effect.gen(function* () {
      const series = yield* exported
      const { list } = dashboard.templating
      assert.deepStrictEqual(
        list.map(({ name }) => name),
        ["datasource", "prefix", "kind", "job", "instance"]
      )
      assert.strictEqual(list.find(({ name }) => name === "kind")?.query, "metadata,stats")
      for (const { query } of list) {
        for (const [expression] of JSON.stringify(query).matchAll(
          /label_values\(\$\{prefix\}_\$\{kind\}_\w+/g
        )) {
          check(`${inserted(expression, "stats")})`, series)
        }
      }
      for (const of of ["id", "title"] as const) {
        const values = dashboard.panels.map((panel) => panel[of])
        assert.strictEqual(new Set(values).size, values.length)
      }
    })
  )
})

describe("the alert rules", () => {
  const { groups } = Schema.decodeUnknownSync(Alerts)(Yaml.parse(read("prometheus-alerts.yaml")))

  it.effect("ask for what is exported", () =>
    Effect.gen(function* () {
      const series = yield* exported
      const rules = groups.flatMap(({ rules }) => rules)
      for (const { annotations, expr, for: duration } of rules) {
        check(expr, series)
        assert.match(duration, /^\d+[smh]$/)
        for (const [, label = ""] of annotations.summary.matchAll(/\$labels\.(\w+)/g)) {
          assert.include(scraped, label)
        }
      }
      assert.strictEqual(new Set(rules.map(({ alert }) => alert)).size, rules.length)
    })
  )

  it.effect("match metrics of different units whether or not the unit is a label", () =>
    Effect.gen(function* () {
      const series = yield* exported
      for (const { alert, expr } of groups.flatMap(({ rules }) => rules)) {
        const [left = "", right] = expr.split(" and ")
        if (right !== undefined) assert.match(right, /^ignoring \(unit\) /, alert)
        if (/\breason\b/.test(left)) {
          assert.match(left, /^sum without \(reason, unit\) /, alert)
        } else {
          // Nothing is summed that exists in several series.
          for (const name of check(left, series)) assert.isFalse(series.get(name)?.has("reason"), alert)
        }
      }
    })
  )

  it.effect("tell of every way in which rows and notifications get lost or late, and tables grow", () =>
    Effect.gen(function* () {
      const series = yield* exported
      const watched = (group: number) =>
        new Set((groups[group]?.rules ?? []).flatMap(({ expr }) => check(expr, series)))
      const worrying = [
        "dropped_keys_total",
        "discarded_total",
        "oldest_pending_age_seconds",
        "batches_total",
        "pending_keys",
        "write_failures_total",
        "in_flight",
        "queue_depth",
        "refused_keys"
      ]
      assert.sameMembers(
        [...watched(0)],
        [...worrying, "publish_errors_total"].map((name) => `agentapi_metadata_${name}`)
      )
      // Statistics are not announced.
      assert.sameMembers(
        [...watched(1)],
        worrying.map((name) => `agentapi_stats_${name}`)
      )
      assert.sameMembers(
        [...watched(2)],
        [
          "connected",
          "reconnects_total",
          "resyncs_total",
          "delivery_latency_seconds_sum",
          "delivery_latency_seconds_count"
        ].map((name) => `agentapi_pubsub_${name}`)
      )
      assert.sameMembers([...watched(3)], ["agentapi_watcher_stale_seconds"])
      assert.sameMembers(
        [...watched(4)],
        ["agentapi_retention_lag_seconds", "agentapi_retention_failures_total"]
      )
    })
  )
})
