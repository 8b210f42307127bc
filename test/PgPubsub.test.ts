import * as Net from "node:net"
import * as Inspect from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as PgPubsub from "../src/PgPubsub.ts"
import type * as Pubsub from "../src/Pubsub.ts"
import * as PubsubMetrics from "../src/PubsubMetrics.ts"
import {
  makeChannel,
  PubsubUnderTest,
  pubsubSuite,
  take,
  takeUntilResync
} from "./conformance/PubsubSuite.ts"
import * as Postgres from "./support/Postgres.ts"

const makeServer = Layer.provideMerge(Postgres.layerClient(), Postgres.layerServer)

/** The backends that listen, as the server sees them, with their last statement. */
const listeners = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql<{ readonly pid: number; readonly query: string; readonly since: string }>`
    SELECT pid, query, query_start::text AS since FROM pg_stat_activity WHERE application_name = 'effect-metadata-batcher/listen'`
)

const terminateListener = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE application_name = 'effect-metadata-batcher/listen'`
)

const until = <A, E, R>(effect: Effect.Effect<A, E, R>, predicate: (a: A) => boolean) =>
  Effect.repeat(effect, { until: predicate, schedule: Schedule.spaced("5 millis") })

/** Stops every process of the server while an effect runs. */
const whileFrozen = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>) {
  const sql = yield* PgClient.PgClient
  const { processId } = yield* EmbeddedPostgres.EmbeddedPostgres
  const backends = yield* sql<{ readonly pid: number }>`SELECT pid FROM pg_stat_activity`
  const pids = [yield* processId, ...backends.map(({ pid }) => pid)]
  const signal = (name: NodeJS.Signals) =>
    Effect.sync(() => {
      for (const pid of pids) process.kill(pid, name)
    })
  return yield* Effect.acquireUseRelease(
    signal("SIGSTOP"),
    () => effect,
    () => signal("SIGCONT")
  )
})

pubsubSuite(
  "PostgreSQL",
  Layer.effect(
    PubsubUnderTest,
    Effect.gen(function* () {
      const context = yield* Effect.context<PgClient.PgClient | EmbeddedPostgres.EmbeddedPostgres>()
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const run = <A, E>(
        effect: Effect.Effect<A, E, PgClient.PgClient | EmbeddedPostgres.EmbeddedPostgres>
      ) => effect.pipe(Effect.provide(context), Effect.orDie, Effect.asVoid)
      const options = { heartbeat: "1 second", maxReconnectDelay: "100 millis" } as const
      const { connected } = PubsubMetrics.make({ prefix: "here" })
      const isLost = until(Metric.value(connected), ({ value }) => value === 0)
      return {
        pubsub: yield* PgPubsub.make({ ...options, metricsPrefix: "here" }),
        elsewhere: yield* Effect.flatMap(Postgres.makeClient(), (sql) =>
          Effect.provideService(PgPubsub.make(options), PgClient.PgClient, sql)
        ),
        cut: run(terminateListener),
        crash: run(Effect.andThen(server.stop("immediate"), server.start)),
        restart: run(Effect.andThen(server.stop(), server.start)),
        hang: run(whileFrozen(isLost))
      }
    })
  ).pipe(Layer.provide(makeServer), Layer.provide(Logger.layer([])))
)

layer(makeServer, { excludeTestServices: true, timeout: "30 seconds" })("PgPubsub", (it) => {
  it.effect("listens on one connection for all subscribers, of none for none", () =>
    Effect.gen(function* () {
      const pubsub = yield* PgPubsub.make()
      assert.deepStrictEqual(yield* listeners, [])
      const [news, weather] = [makeChannel(), makeChannel()]
      const [first, second, third] = [yield* Scope.make(), yield* Scope.make(), yield* Scope.make()]
      yield* Scope.provide(pubsub.subscribe(news), first)
      yield* Scope.provide(pubsub.subscribe(news), second)
      yield* Scope.provide(pubsub.subscribe(weather), third)
      assert.strictEqual((yield* listeners).length, 1)

      yield* Scope.close(first, Exit.void)
      yield* Scope.close(second, Exit.void)
      yield* until(listeners, ([listener]) => listener?.query === `UNLISTEN "${news}"`)
      yield* Scope.close(third, Exit.void)
      yield* until(listeners, (rows) => rows.length === 0)
    })
  )

  it.effect("needs no connection of the application's pool to listen", () =>
    Effect.gen(function* () {
      const sql = yield* Postgres.makeClient({ maxConnections: 1 })
      const pubsub = yield* Effect.provideService(PgPubsub.make(), PgClient.PgClient, sql)
      const channel = makeChannel()
      const signals = yield* pubsub.subscribe(channel)
      yield* pubsub.publish(channel, ["hello"])
      assert.deepStrictEqual(yield* take(signals, 1), ["hello"])
    })
  )

  it.effect("delivers what another process publishes, and only once it is committed", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const pubsub = yield* PgPubsub.make()
      const other = yield* Effect.flatMap(Postgres.makeClient(), (client) =>
        Effect.provideService(PgPubsub.make(), PgClient.PgClient, client)
      )
      const channel = makeChannel()
      const signals = yield* pubsub.subscribe(channel)
      yield* pubsub
        .publish(channel, ["rolled back"])
        .pipe(Effect.andThen(Effect.fail("rolled back")), sql.withTransaction, Effect.flip)
      yield* other.publish(channel, ["from elsewhere"])
      assert.deepStrictEqual(yield* take(signals, 1), ["from elsewhere"])
    })
  )

  it.effect("fails to subscribe as unavailable while the server cannot be reached", () =>
    Effect.gen(function* () {
      const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
      const pubsub = yield* PgPubsub.make({ connection: { ...config, host: "/nowhere" } })
      const { reason } = yield* Effect.flip(pubsub.subscribe(makeChannel()))
      assert.strictEqual(reason._tag, "Unavailable")
    })
  )

  it.effect("comes back after the server was down, and says so in two lines", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        lines.push(`${logLevel}: ${Array.isArray(message) ? message[0] : message}`)
      })
      yield* Effect.gen(function* () {
        const pubsub = yield* PgPubsub.make({ maxReconnectDelay: "50 millis" })
        const [news, weather] = [makeChannel(), makeChannel()]
        const signals = yield* pubsub.subscribe(news)
        yield* server.stop()
        // Whether the loss has been noticed by then or not.
        for (let attempt = 0; attempt < 3; attempt++) {
          assert.strictEqual((yield* Effect.flip(pubsub.subscribe(weather))).reason._tag, "Unavailable")
        }
        assert.strictEqual((yield* Effect.flip(pubsub.publish(news, ["lost"]))).reason._tag, "Unavailable")
        yield* server.start
        assert.strictEqual((yield* Queue.take(signals))._tag, "Resync")
        yield* pubsub.publish(news, ["hello again"])
        assert.deepStrictEqual(yield* take(signals, 1), ["hello again"])
        yield* until(
          Effect.sync(() => lines.length),
          (count) => count >= 2
        )
      }).pipe(Effect.provide(Logger.layer([logger])))
      assert.deepStrictEqual(lines, [
        "Warn: Lost the connection that listens for notifications; connecting again",
        "Info: Listening for notifications again"
      ])
    })
  )

  it.effect("finds out by itself that a connection is dead though it seems open", () =>
    Effect.gen(function* () {
      const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
      const sockets: Array<Net.Socket> = []
      const pubsub = yield* PgPubsub.make({
        heartbeat: "500 millis",
        connection: {
          ...config,
          stream: () => {
            const socket = Net.connect(`${config.host}/.s.PGSQL.${config.port}`)
            sockets.push(socket)
            return socket
          }
        }
      })
      const channel = makeChannel()
      const signals = yield* pubsub.subscribe(channel)
      const leaving = yield* Scope.make()
      yield* Scope.provide(pubsub.subscribe(makeChannel()), leaving)
      yield* pubsub.publish(channel, ["before"])
      assert.deepStrictEqual(yield* take(signals, 1), ["before"])
      // As if the network swallowed every packet from here on, both ways.
      for (const socket of sockets) {
        socket.pause()
        socket.write = () => true
      }
      yield* Scope.close(leaving, Exit.void)
      yield* takeUntilResync(signals)
      yield* pubsub.publish(channel, ["after"])
      assert.deepStrictEqual(yield* take(signals, 1), ["after"])
    })
  )

  it.effect("stays open through heartbeats", () =>
    Effect.gen(function* () {
      // Also how long an answer may take: shorter, and a busy machine is taken for a dead connection.
      const pubsub = yield* PgPubsub.make({ heartbeat: "500 millis" })
      const channel = makeChannel()
      const signals = yield* pubsub.subscribe(channel)
      const [before] = yield* listeners
      const heartbeats = new Set<string>()
      yield* until(listeners, ([listener]) => {
        if (listener?.query === "SELECT 1") heartbeats.add(listener.since)
        return heartbeats.size === 3
      })
      yield* pubsub.publish(channel, ["hello"])
      assert.deepStrictEqual(yield* take(signals, 1), ["hello"])
      assert.strictEqual((yield* listeners)[0]?.pid, before?.pid)
    })
  )

  it.effect("ends its subscriptions and its connection with its own scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const pubsub: Pubsub.Pubsub["Service"] = yield* Scope.provide(PgPubsub.make(), scope)
      const signals = yield* pubsub.subscribe(makeChannel())
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(Queue.take(signals))))
      yield* until(listeners, (rows) => rows.length === 0)
    })
  )

  it.effect("quotes no payload in an error, though the server does", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      yield* sql`CREATE SCHEMA quoting`
      yield* sql`CREATE FUNCTION quoting.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'bad: %', $2 USING ERRCODE = '22P02', DETAIL = $2, HINT = $2; END $$`
      const client = yield* Postgres.makeClient({
        startupParameters: { search_path: "quoting, pg_catalog" }
      })
      const pubsub = yield* Effect.provideService(PgPubsub.make(), PgClient.PgClient, client)
      const error = yield* Effect.flip(pubsub.publish(makeChannel(), ["a secret"]))
      assert.strictEqual(error.message, "the pubsub refuses this: SQLSTATE 22P02")
      assert.notInclude(`${JSON.stringify(error)} ${Inspect.inspect(error, { depth: 10 })}`, "secret")
    })
  )

  it.effect("refuses options that make no sense, and says which", () =>
    Effect.gen(function* () {
      for (const [options, option] of [
        [{ heartbeat: 0 }, "heartbeat"],
        [{ heartbeat: Number.NaN }, "heartbeat"],
        [{ maxReconnectDelay: "100 days" }, "maxReconnectDelay"],
        [{ metricsPrefix: "my-app" }, "metricsPrefix"]
      ] as const) {
        const { message } = yield* Effect.flip(PgPubsub.make(options))
        assert.match(message, new RegExp(`: ${option} must be `))
      }
    })
  )
})
