/** A connection may live, accept `LISTEN` and hear nothing: what the heartbeat finds out. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Tracer from "effect/Tracer"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as PgPubsub from "../src/PgPubsub.ts"
import * as PubsubMetrics from "../src/PubsubMetrics.ts"
import { makeChannel, take, takeUntilResync } from "./conformance/PubsubSuite.ts"
import { captureLogs } from "./support/Fakes.ts"
import * as PgBouncer from "./support/PgBouncer.ts"
import * as Postgres from "./support/Postgres.ts"
import * as TcpSwitch from "./support/TcpSwitch.ts"

const heartbeat = "300 millis"

const listener = Effect.flatMap(
  PgClient.PgClient,
  (sql) =>
    sql<{ readonly pid: number; readonly query: string; readonly since: string }>`
      SELECT pid, query, query_start::text AS since FROM pg_stat_activity
      WHERE application_name = 'effect-metadata-batcher/listen' AND datname = current_database()`
).pipe(Effect.map(([row]) => row ?? assert.fail("nobody listens")))

const until = <A, E, R>(effect: Effect.Effect<A, E, R>, predicate: (a: A) => boolean) =>
  Effect.repeat(effect, { until: predicate, schedule: Schedule.spaced("5 millis") })

/** One more server. */
const makeServer = Effect.map(Postgres.makeServer, ({ config }) => config)

const socketOf = ({ host, port }: PgClient.PgPoolConfig) => ({ path: `${host}/.s.PGSQL.${port}` })

const through = ({ port }: TcpSwitch.TcpSwitch) => ({ host: "127.0.0.1", port, username: "postgres" })

layer(Layer.provideMerge(Postgres.layerClient(), Postgres.layerServer), {
  excludeTestServices: true,
  timeout: "60 seconds"
})("PgPubsub's heartbeat", (it) => {
  /** Subscribes through `connection`, and waits until nothing was heard twice. */
  const assertUnheard = Effect.fnUntraced(function* (connection: PgClient.PgPoolConfig) {
    const [lines, layer] = captureLogs()
    yield* Effect.gen(function* () {
      const pubsub = yield* PgPubsub.make({ heartbeat, connection })
      const signals = yield* pubsub.subscribe(makeChannel())
      yield* takeUntilResync(signals)
      yield* takeUntilResync(signals)
    }).pipe(Effect.scoped, Effect.provide(layer))
    const { annotations, level, message } = lines[0] ?? assert.fail("nothing was logged")
    assert.strictEqual(level, "Warn")
    assert.strictEqual(message, "Lost the connection that listens for notifications; connecting again")
    assert.match(String(annotations["error"]), /pooler.*another database.*no longer the primary/)
  })

  it.effect("says why nothing may arrive on another database, and has subscribers read anew", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      yield* sql`CREATE DATABASE elsewhere`
      yield* assertUnheard({ ...sql.config, database: "elsewhere" })
    })
  )

  it.effect.skipIf(PgBouncer.version === undefined)(
    "says so of a pooler that shares connections between transactions",
    () =>
      Effect.gen(function* () {
        const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
        yield* assertUnheard({ ...(yield* PgBouncer.make(config)), prepare: false })
      }).pipe(Effect.scoped)
  )

  it.effect("moves to the new primary when the old one lives on behind a proxy", () =>
    Effect.gen(function* () {
      const { config: before } = yield* EmbeddedPostgres.EmbeddedPostgres
      const after = yield* makeServer
      // The pool's connections are renewed sooner than the one that listens.
      const poolSwitch = yield* TcpSwitch.make({ target: socketOf(before) })
      const listenSwitch = yield* TcpSwitch.make({ target: socketOf(before) })
      const sql = yield* Effect.map(Layer.build(PgClient.layer(through(poolSwitch))), (context) =>
        Context.get(context, PgClient.PgClient)
      )
      const pubsub = yield* Effect.provideService(
        PgPubsub.make({ heartbeat, connection: through(listenSwitch) }),
        PgClient.PgClient,
        sql
      )
      const channel = makeChannel()
      const signals = yield* pubsub.subscribe(channel)
      yield* pubsub.publish(channel, ["before"])
      assert.deepStrictEqual(yield* take(signals, 1), ["before"])

      yield* listenSwitch.pointTo(socketOf(after))
      yield* poolSwitch.pointTo(socketOf(after))
      yield* poolSwitch.cut
      yield* takeUntilResync(signals)
      yield* pubsub.publish(channel, ["after"])
      assert.deepStrictEqual(yield* take(signals, 1), ["after"])
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
  )

  it.effect("judges nothing while the pool has no connection to send with", () =>
    Effect.gen(function* () {
      const sql = yield* Postgres.makeClient({ maxConnections: 1 })
      const pubsub = yield* Effect.provideService(PgPubsub.make({ heartbeat }), PgClient.PgClient, sql)
      const other = yield* PgPubsub.make()
      const channel = makeChannel()
      const signals = yield* pubsub.subscribe(channel)
      const { pid } = yield* listener
      const done = yield* Deferred.make<void>()
      yield* Effect.forkScoped(sql.withTransaction(Deferred.await(done)))
      const probes = new Set<string>()
      yield* until(listener, ({ query, since }) => {
        if (query === "SELECT 1") probes.add(since)
        return probes.size === 4
      })
      yield* other.publish(channel, ["still here"])
      assert.deepStrictEqual(yield* take(signals, 1), ["still here"])
      assert.strictEqual((yield* listener).pid, pid)
      yield* Deferred.succeed(done, undefined)
    }).pipe(Effect.scoped)
  )

  it.effect("keeps nothing of whoever builds it or subscribes first", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const [lines, layer] = captureLogs()
      const spans: Array<string> = []
      const tracer = Tracer.make({
        span: (options) => {
          spans.push(options.name)
          return new Tracer.NativeSpan(options)
        }
      })
      const { deliveryLatency } = PubsubMetrics.make({ prefix: "caller" })
      yield* Effect.gen(function* () {
        const { pubsub, signals } = yield* Effect.gen(function* () {
          const pubsub = yield* PgPubsub.make({ heartbeat, metricsPrefix: "caller" })
          return { pubsub, signals: yield* pubsub.subscribe(makeChannel()) }
        }).pipe(
          sql.withTransaction,
          Effect.withSpan("caller"),
          Effect.withLogSpan("caller"),
          Effect.annotateLogs({ caller: "builds" })
        )
        yield* pubsub
          .subscribe(makeChannel())
          .pipe(Effect.withSpan("caller"), Effect.annotateLogs({ caller: "subscribes" }), Effect.scoped)
        const started = spans.length
        // Were it sent in the caller's transaction, which is over, it would never arrive.
        yield* until(Metric.value(deliveryLatency), ({ count }) => count >= 2)
        yield* sql`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
          WHERE application_name = 'effect-metadata-batcher/listen'`
        yield* takeUntilResync(signals)
        yield* until(
          Effect.sync(() => lines.length),
          (count) => count >= 2
        )
        assert.deepStrictEqual(spans.slice(started), ["postgres"])
      }).pipe(Effect.scoped, Effect.withTracer(tracer), Effect.provide(layer))
      for (const { annotations } of lines) assert.notProperty(annotations, "caller")
    })
  )
})
