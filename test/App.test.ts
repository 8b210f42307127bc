/** The runnable as a user runs it: a process of its own, with real signals and its own PostgreSQL. */
import { createServer, type ServerResponse } from "node:http"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const main = new URL("../src/app/main.ts", import.meta.url).pathname

interface Run {
  readonly arguments: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>> | undefined
  /** Gets each line of the output, and what sends SIGTERM. */
  readonly onLine?: ((line: string, stop: Effect.Effect<void>) => Effect.Effect<void>) | undefined
}

const run = Effect.fnUntraced(function* ({ onLine, ...options }: Run) {
  const spawner = yield* ChildProcessSpawner
  const inherited = Object.entries(process.env).filter(([name]) => !/^(OTEL_|DATABASE_URL)/.test(name))
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, [main, ...options.arguments], {
      env: { ...Object.fromEntries(inherited), ...options.environment },
      extendEnv: false
    })
  )
  const lines: Array<string> = []
  yield* child.all.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => {
      lines.push(line)
      return onLine?.(line, Effect.ignore(child.kill())) ?? Effect.void
    })
  )
  const numbers = (label: string): ReadonlyArray<number> => {
    const line = lines.find((line) => line.startsWith(label)) ?? ""
    return Array.from(line.slice(label.length).matchAll(/[\d,]+/g), ([text]) =>
      Number(text.replaceAll(",", ""))
    )
  }
  return { exitCode: Number(yield* child.exitCode), output: lines.join("\n"), numbers }
}, Effect.scoped)

type Result = Effect.Success<ReturnType<typeof run>>

/** Both accounts add up, and everything that was accepted is in the tables. */
const assertNothingLost = ({ exitCode, numbers, output }: Result) => {
  const offered = numbers("offered")
  const sums = numbers("= written").map(
    (written, batcher) =>
      written +
      (numbers("+ superseded")[batcher] ?? Number.NaN) +
      (numbers("+ dropped")[batcher] ?? Number.NaN) +
      (numbers("+ discarded")[batcher] ?? Number.NaN)
  )
  assert.strictEqual(offered.length, 2, output)
  assert.deepStrictEqual(sums, offered, output)
  assert.deepStrictEqual(numbers("+ discarded"), [0, 0])
  assert.match(output, /checked [\d,]+ keys: all newest/)
  assert.match(output, /checked [\d,]+ rows of statistics: all there, each once/)
  assert.strictEqual(exitCode, 0)
}

const notified = /written [1-9].* notifications [1-9]/

const accept = (response: ServerResponse) => response.setHeader("content-type", "application/json").end("{}")

/** Takes what OTLP exporters send over HTTP as JSON. */
const collector = (answer: (response: ServerResponse) => unknown = accept) =>
  Effect.acquireRelease(
    Effect.promise(
      () =>
        new Promise<{ readonly url: string; readonly bodies: Array<string>; readonly close: () => void }>(
          (resolve) => {
            const bodies: Array<string> = []
            const server = createServer((request, response) => {
              let body = ""
              request.setEncoding("utf8")
              request.on("data", (chunk: string) => (body += chunk))
              request.on("end", () => {
                bodies.push(body)
                answer(response)
              })
            })
            server.listen(0, "127.0.0.1", () => {
              const address = server.address()
              const port = typeof address === "object" ? address?.port : undefined
              const close = () => {
                server.closeAllConnections()
                server.close()
              }
              resolve({ url: `http://127.0.0.1:${port}`, bodies, close })
            })
          }
        )
    ),
    (server) => Effect.sync(server.close)
  )

interface Span {
  readonly name: string
  readonly spanId: string
  readonly links: ReadonlyArray<{ readonly spanId: string }>
  readonly attributes: ReadonlyArray<{
    readonly key: string
    readonly value: { readonly intValue?: number | string }
  }>
}

interface Metric {
  readonly name: string
  readonly sum?: { readonly dataPoints: ReadonlyArray<{ readonly asDouble: number }> }
}

interface Body {
  readonly resourceSpans?: ReadonlyArray<{
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<Span> }>
  }>
  readonly resourceMetrics?: ReadonlyArray<{
    readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<Metric> }>
  }>
}

const small = ["simulate", "--agents", "60", "--batch-size", "100", "--stats-interval", "1s"]

// They wait more than they work.
const concurrent = { concurrent: true }

it.live(
  "writes, notifies and serves metrics until SIGTERM, and then accounts for everything",
  () =>
    Effect.gen(function* () {
      const { bodies, url } = yield* collector()
      let metricsUrl = ""
      let metrics = ""
      const result = yield* run({
        arguments: small,
        environment: { OTEL_EXPORTER_OTLP_ENDPOINT: url },
        onLine: (line, stop) => {
          metricsUrl ||= /http:\S+\/metrics/.exec(line)?.[0] ?? ""
          if (metrics !== "" || !notified.test(line)) return Effect.void
          return Effect.promise(async () => (await fetch(metricsUrl)).text()).pipe(
            Effect.flatMap((text) => {
              metrics = text
              return stop
            })
          )
        }
      })
      assertNothingLost(result)
      const [written = 0] = result.numbers("= written")
      assert.isAbove(written, 0)

      for (const name of [
        "batch_utilization",
        "batch_size",
        "flush_duration_seconds",
        "batches_total",
        "dropped_keys_total",
        "flushed_total",
        "publish_errors_total"
      ]) {
        if (name === "dropped_keys_total" || name === "publish_errors_total") continue
        assert.match(
          metrics,
          new RegExp(`^agentapi_metadata_${name}\\b|^agentapi_metadata_${name}_bucket`, "m")
        )
      }
      assert.match(metrics, /^agentapi_metadata_batches_total\{reason="capacity"\} [1-9]/m)

      const received = bodies.map((body): Body => JSON.parse(body))
      const spans = received.flatMap(({ resourceSpans = [] }) =>
        resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))
      )
      const flushes = spans.filter(({ name }) => name === "MetadataBatcher.flush")
      const reports = new Set(spans.filter(({ name }) => name === "AgentReport").map(({ spanId }) => spanId))
      const sizes = flushes.map(({ attributes }) =>
        Number(attributes.find(({ key }) => key === "batcher.batch.size")?.value.intValue)
      )
      // The spans of the last flush, too.
      assert.strictEqual(
        sizes.reduce((sum, size) => sum + size, 0),
        written
      )
      for (const { links } of flushes) {
        assert.isNotEmpty(links)
        assert.isTrue(links.every(({ spanId }) => reports.has(spanId)))
      }

      const flushed = received
        .flatMap(({ resourceMetrics = [] }) =>
          resourceMetrics.flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
        )
        .filter(({ name }) => name === "agentapi_metadata_flushed_total")
      assert.strictEqual(flushed.at(-1)?.sum?.dataPoints[0]?.asDouble, written)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  concurrent
)

it.live(
  "loses nothing when its database is killed and comes back",
  () =>
    Effect.gen(function* () {
      const result = yield* run({
        arguments: [...small, "--outage-after", "1s", "--outage", "1500ms", "--duration", "4s"]
      })
      assertNothingLost(result)
      assert.match(result.output, / DOWN \|/)
      assert.match(result.output, /RSS \d+ MB before the outage, at most \d+ MB during it, \d+ MB now/)
      assert.deepStrictEqual(result.numbers("+ dropped"), [0, 0])
      assert.isAbove(result.numbers("+ superseded")[0] ?? 0, 0)
    }).pipe(Effect.provide(NodeServices.layer)),
  concurrent
)

it.live(
  "says what telemetry it could not deliver, and ends as well as without",
  () =>
    Effect.gen(function* () {
      const refusing = yield* collector((response) => response.writeHead(401).end("no"))
      const silent = yield* collector(() => {})
      const brief = [...small, "--duration", "1s"]
      const [refused, unanswered] = yield* Effect.all(
        [
          run({
            arguments: brief,
            environment: {
              OTEL_EXPORTER_OTLP_ENDPOINT: refusing.url,
              OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
              OTEL_METRIC_EXPORT_INTERVAL: "soon",
              OTEL_METRIC_EXPORT_TIMEOUT: "0",
              OTEL_TRACES_EXPORTER: "otlp,zipkin",
              OTEL_RESOURCE_ATTRIBUTES: "my.service.name=z,service.instance.id=replica%201"
            }
          }),
          run({ arguments: brief, environment: { OTEL_EXPORTER_OTLP_ENDPOINT: silent.url } })
        ],
        { concurrency: "unbounded" }
      )
      assertNothingLost(refused)
      for (const warning of [
        "OpenTelemetry: the last spans could not be delivered: Unauthorized",
        'OTEL_EXPORTER_OTLP_PROTOCOL: expected http/json, which is what is sent, not "grpc"',
        'OTEL_METRIC_EXPORT_INTERVAL: expected a whole number of milliseconds, not "soon"',
        'OTEL_METRIC_EXPORT_TIMEOUT: expected a whole number of milliseconds, not "0"',
        'OTEL_TRACES_EXPORTER: expected otlp, console or none, not "zipkin"'
      ]) {
        assert.include(refused.output, `WARN ${warning}`)
      }
      const [body = ""] = refusing.bodies
      assert.include(body, '{"key":"service.name","value":{"stringValue":"effect-metadata-batcher"}}')
      assert.include(body, '{"key":"service.instance.id","value":{"stringValue":"replica 1"}}')

      assertNothingLost(unanswered)
      for (const signal of ["spans", "metrics"]) {
        assert.include(
          unanswered.output,
          `WARN OpenTelemetry: the last ${signal} could not be delivered: no answer within 3 s`
        )
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
  concurrent
)

it.live(
  "says in one line what is wrong with its input",
  () =>
    Effect.gen(function* () {
      const [migrate, flag, outage] = yield* Effect.all(
        [
          run({ arguments: ["migrate"] }),
          run({ arguments: ["simulate", "--outage", "soon"] }),
          run({
            arguments: ["simulate", "--outage", "1s"],
            environment: { DATABASE_URL: "postgres://somebody@localhost:1/theirs" }
          })
        ],
        { concurrency: "unbounded" }
      )
      assert.match(migrate.output, /^ERROR\n {2}DATABASE_URL is not set$/m)
      assert.strictEqual(migrate.exitCode, 1)

      assert.match(flag.output, /--outage: "soon". Expected: a duration such as 500ms, 10s or 2m/)
      assert.strictEqual(flag.exitCode, 1)

      assert.match(outage.output, /--outage/)
      assert.strictEqual(outage.exitCode, 1)
    }).pipe(Effect.provide(NodeServices.layer)),
  concurrent
)

layer(SharedPostgres.layerServer, { excludeTestServices: true, timeout: "30 seconds" })(
  "with DATABASE_URL",
  (it) => {
    it.effect("migrates, and fails when the table does not hold what was reported", () =>
      Effect.gen(function* () {
        const sql = yield* Postgres.makeClient()
        const environment = {
          DATABASE_URL: Postgres.urlOf(sql.config)
        }
        const migrated = yield* run({ arguments: ["migrate"], environment })
        assert.match(migrated.output, /applied 1 workspace_agent_metadata\napplied 2 workspace_agent_stats/)
        assert.strictEqual(migrated.exitCode, 0)

        yield* sql`CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`
        yield* sql`CREATE TRIGGER lose BEFORE INSERT ON workspace_agent_metadata
          FOR EACH ROW WHEN (NEW.key = 'cpu') EXECUTE FUNCTION lose()`
        const result = yield* run({
          arguments: ["simulate", "--agents", "5", "--interval", "100ms", "--duration", "1s"],
          environment
        })
        assert.match(result.output, /checked 50 keys: 5 hold an older value/)
        assert.match(result.output, /LOST: 5 records were accepted and not written/)
        assert.strictEqual(result.exitCode, 1)
      }).pipe(Effect.provide(NodeServices.layer))
    )
  }
)
