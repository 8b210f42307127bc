/** Connection statistics through `StatsBatcher` and `PgStore` into a real server, and connections that die. */
import * as FileSystem from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import type { AgentStats, AgentStatsRow } from "../src/AgentStats.ts"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as PgStore from "../src/PgStore.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { makeStats } from "./conformance/StoreSuite.ts"
import { agentIdOf, assertAddsUp } from "./support/Fakes.ts"
import * as Postgres from "./support/Postgres.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const kills = 12

/** Rows added before each kill. They are more than 60,000 bytes of a statement. */
const rowsPerKill = 256

const report = (number: number): AgentStats => {
  const { id: _, ...stats } = makeStats({
    agentId: agentIdOf(number % 100),
    createdAt: DateTime.makeUnsafe(1_700_000_000_000 + number),
    // Every third map is empty, the others have a protocol of their own.
    connectionsByProto: number % 3 === 0 ? {} : { ssh: number, [`protocol ${number}`]: 1 },
    rxBytes: 2n ** 53n + BigInt(number),
    txBytes: 2n ** 63n - 1n - BigInt(number)
  })
  return stats
}

/** The stored rows in the order of their numbers, without their ids. */
const readReports = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<Omit<AgentStatsRow, "createdAt"> & { readonly createdAt: Date }>`
      SELECT created_at AS "createdAt", agent_id AS "agentId", user_id AS "userId",
        template_id AS "templateId", workspace_id AS "workspaceId",
        connections_by_proto AS "connectionsByProto", connection_count AS "connectionCount",
        rx_packets AS "rxPackets", rx_bytes AS "rxBytes", tx_packets AS "txPackets", tx_bytes AS "txBytes",
        session_count_vscode AS "sessionCountVSCode", session_count_jetbrains AS "sessionCountJetBrains",
        session_count_reconnecting_pty AS "sessionCountReconnectingPTY",
        session_count_ssh AS "sessionCountSSH", connection_median_latency_ms AS "connectionMedianLatencyMs"
      FROM workspace_agent_stats ORDER BY rx_bytes`,
    (rows) => rows.map((row) => ({ ...row, createdAt: DateTime.fromDateUnsafe(row.createdAt) }))
  )

/** A batcher that tries again soon, and each beginning of a write. */
const makeBatcher = Effect.fnUntraced(function* (sql: PgClient.PgClient) {
  const store = yield* Effect.provideService(PgStore.make(), PgClient.PgClient, sql)
  const began = yield* Queue.sliding<void>(1)
  const batcher = yield* Effect.provideService(
    StatsBatcher.make({ interval: "10 millis" }),
    Store.Store,
    Store.Store.of({
      ...store,
      batchInsertStats: (rows) => {
        Queue.offerUnsafe(began, undefined)
        return store.batchInsertStats(rows)
      }
    })
  )
  return { batcher, began }
})

/** Writes what is left and checks that the table holds each report once, as it was added. */
const assertStored = Effect.fnUntraced(function* (
  batcher: StatsBatcher.StatsBatcher["Service"],
  added: ReadonlyArray<AgentStats>
) {
  yield* Effect.andThen(batcher.flush, batcher.accounting).pipe(
    Effect.tap(assertAddsUp),
    Effect.repeat({
      // A row that was alone in a statement when that was cut off waits apart for a second.
      until: ({ inFlight, pending, refused }) => inFlight + pending + refused === 0,
      schedule: Schedule.spaced("20 millis")
    })
  )
  const { length } = added
  assert.deepInclude(yield* batcher.accounting, { offered: length, written: length })
  const sql = yield* PgClient.PgClient
  assert.deepStrictEqual(yield* readReports(sql), added)
})

/** Where a connection breaks, counted from when the fault is injected. */
type Fault =
  /** After so many bytes of the statement. */
  | { readonly _tag: "Sending"; readonly bytes: number }
  /** After so many bytes of the answer to a statement of 60,000 bytes or more: by then it is committed. */
  | { readonly _tag: "Answering"; readonly bytes: number }

/** Stands between a client and the server and breaks connections. */
const makeProxy = Effect.gen(function* () {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const socketName = `.s.PGSQL.${config.port}`
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => FileSystem.mkdtemp(Path.join(Os.tmpdir(), "proxy-"))),
    (directory) => Effect.promise(() => FileSystem.rm(directory, { recursive: true, force: true }))
  )
  let current: { readonly fault: Fault; readonly broken: Deferred.Deferred<void> } | undefined
  let sent = 0
  let answered = 0

  const sockets = new Set<Net.Socket>()
  const relay = (client: Net.Socket) => {
    const server = Net.connect(Path.join(config.host ?? "", socketName))
    for (const [socket, other] of [
      [client, server],
      [server, client]
    ] as const) {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
    /** Passes on a chunk up to where the connection is to break. */
    const pass = (chunk: Buffer, to: Net.Socket, room: number | undefined) => {
      if (room === undefined || chunk.length < room) {
        to.write(chunk)
        return
      }
      const broken = current?.broken
      current = undefined
      // The last bytes leave before the connection is closed on both sides.
      to.write(chunk.subarray(0, room), () => {
        client.destroy()
        server.destroy()
        if (broken !== undefined) Deferred.doneUnsafe(broken, Effect.void)
      })
    }
    client.on("data", (chunk) => {
      const fault = current?.fault
      const room = fault?._tag === "Sending" ? fault.bytes - sent : undefined
      sent += chunk.length
      pass(chunk, server, room)
    })
    server.on("data", (chunk) => {
      const fault = current?.fault
      const isAnswer = fault?._tag === "Answering" && sent >= 60_000
      const room = isAnswer ? fault.bytes - answered : undefined
      if (isAnswer) answered += chunk.length
      pass(chunk, client, room)
    })
  }

  yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer(relay).listen(Path.join(directory, socketName), () =>
        resume(Effect.succeed(server))
      )
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )

  return {
    host: directory,
    /** Breaks the connection once, and waits for that. */
    inject: (fault: Fault) =>
      Effect.sync(() => {
        const broken = Deferred.makeUnsafe<void>()
        current = { fault, broken }
        sent = 0
        answered = 0
        return Deferred.await(broken)
      })
  }
})

const emptyTable = Effect.flatMap(PgClient.PgClient, (sql) => sql`TRUNCATE workspace_agent_stats`)

// The outages are what is tested; their log lines are tested elsewhere.
const quietly = Effect.provideService(References.MinimumLogLevel, "None")

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "StatsBatcher on PostgreSQL",
  (it) => {
    it.effect("rows come back equal, each with its own map and counts beyond 2^53", () =>
      Effect.gen(function* () {
        const { batcher } = yield* makeBatcher(yield* PgClient.PgClient)
        const added = Array.from({ length: 2_500 }, (_, number) => report(number))
        yield* Effect.forEach(added, batcher.add)
        yield* assertStored(batcher, added)
      }).pipe(Effect.ensuring(Effect.orDie(emptyTable)))
    )

    it.effect("times are kept to the microsecond", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const { batcher } = yield* makeBatcher(sql)
        const createdAt = DateTime.mapEpochMillis(
          report(0).createdAt,
          (milliseconds) => milliseconds + 0.1239
        )
        yield* batcher.add({ ...report(0), createdAt })
        yield* batcher.flush
        const rows = yield* sql`SELECT to_char(created_at, 'SS.US') AS seconds FROM workspace_agent_stats`
        assert.deepStrictEqual(rows, [{ seconds: "20.000123" }])
      }).pipe(Effect.ensuring(Effect.orDie(emptyTable)))
    )

    it.effect(
      `no row is lost or doubled when the backend is terminated at a random point of a write ${kills} times in a row`,
      () =>
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const client = yield* Postgres.makeClient({ applicationName: "stats" })
          const { batcher, began } = yield* makeBatcher(client)
          const added: Array<AgentStats> = []
          // By process id: one that is still on its way out is not killed twice.
          const killed = new Set<number>()
          // So that a write lasts, however fast the machine is, and there is time to hit it.
          yield* sql`CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(0.01); RETURN NULL; END'`
          for (const when of ["BEFORE", "AFTER"]) {
            yield* sql.unsafe(`CREATE TRIGGER rest_${when} ${when} INSERT ON workspace_agent_stats
              FOR EACH STATEMENT EXECUTE FUNCTION rest()`)
          }
          while (killed.size < kills) {
            for (let row = 0; row < rowsPerKill; row++) {
              const stats = report(added.length)
              added.push(stats)
              yield* batcher.add(stats)
            }
            yield* Queue.take(began)
            yield* Effect.sleep(yield* Random.nextBetween(0, 20))
            const terminated = yield* sql<{ readonly pid: number }>`
          SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE application_name = 'stats' AND state = 'active'`
            for (const { pid } of terminated) killed.add(pid)
          }
          yield* sql`DROP FUNCTION rest CASCADE`
          yield* assertStored(batcher, added)
        }).pipe(quietly, Random.withSeed("terminate"), Effect.ensuring(Effect.orDie(emptyTable)))
    )

    it.effect(
      `no row is lost or doubled when the connection breaks at a random byte of a write ${kills} times in a row`,
      () =>
        Effect.gen(function* () {
          const proxy = yield* makeProxy
          const { batcher } = yield* makeBatcher(yield* Postgres.makeClient({ host: proxy.host }))
          const added: Array<AgentStats> = []
          for (let broken = 0; broken < kills; broken++) {
            const isSent = yield* Random.nextBoolean
            const awaitBreak = yield* proxy.inject(
              isSent
                ? { _tag: "Answering", bytes: yield* Random.nextIntBetween(0, 30) }
                : { _tag: "Sending", bytes: yield* Random.nextIntBetween(1, 60_000) }
            )
            for (let row = 0; row < rowsPerKill; row++) {
              const stats = report(added.length)
              added.push(stats)
              yield* batcher.add(stats)
            }
            yield* awaitBreak
          }
          yield* assertStored(batcher, added)
        }).pipe(quietly, Random.withSeed("break"), Effect.ensuring(Effect.orDie(emptyTable)))
    )
  }
)
