/**
 * What a fault of a real PostgreSQL costs, one test for each. After every one,
 * whatever was taken is in the table with its newest value,
 * the account adds up, and a subscriber that reads when notified has seen it.
 */
import * as Net from "node:net"
import { Duplex } from "node:stream"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as PgMigrations from "../src/PgMigrations.ts"
import * as PgPubsub from "../src/PgPubsub.ts"
import * as PgStore from "../src/PgStore.ts"
import { Store, type StoreErrorReason } from "../src/Store.ts"
import { makeAgentId } from "./support/Fakes.ts"
import { start, until } from "./support/PgBatcher.ts"
import * as Postgres from "./support/Postgres.ts"

const keys = ["cpu", "disk", "ram"]

/** Stops the server, and starts it again at the end of a test that has not. */
const stop = (mode?: "fast" | "immediate") =>
  Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, (server) =>
    Effect.acquireRelease(server.stop(mode), () => Effect.ignore(server.start))
  )

/** A write under way that waits for a lock: what `strike` hits is in the middle of its work. */
const inMidWrite = <E>(
  started: Effect.Success<ReturnType<typeof start>>,
  strike: (pid: number) => Effect.Effect<unknown, E>,
  reason: StoreErrorReason["_tag"]
) =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* started.lockRows
      yield* started.add(keys)
      const backends = yield* started.until(started.backends, (rows) => rows.some(({ waits }) => waits))
      for (const { pid, waits } of backends) if (waits) yield* strike(pid)
      yield* started.untilFailed(reason)
    })
  )

/** Connections to a Unix socket whose answers can be kept from arriving. */
const makeProxy = (path: string) => {
  const open = new Set<Duplex>()
  const muted = new Set<Duplex>()
  let held: Set<Net.Socket> | undefined
  const stream = () => {
    const socket = Net.connect({ path })
    if (held !== undefined) held.add(socket.pause())
    const duplex = new Duplex({
      read: () => {},
      write: (data, encoding, done) => socket.write(data, encoding, done),
      final: (done) => socket.end(done),
      destroy: (error, done) => {
        socket.destroy()
        done(error)
      }
    })
    socket.on("data", (data) => {
      if (!muted.has(duplex)) duplex.push(data)
    })
    socket.on("error", (error) => duplex.destroy(error))
    socket.on("close", () => duplex.destroy())
    open.add(duplex)
    return duplex
  }
  const release = Effect.sync(() => {
    for (const socket of held ?? []) socket.resume()
    held = undefined
  })
  /** Mutes the connections there are and cuts them in the end; those opened later hear nothing until `release`. */
  const mute = Effect.acquireRelease(
    Effect.sync(() => {
      held = new Set()
      for (const duplex of open) muted.add(duplex)
    }),
    () =>
      Effect.andThen(
        release,
        Effect.sync(() => {
          for (const duplex of muted) duplex.destroy()
        })
      )
  )
  return { stream, mute, release }
}

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("PostgreSQL", (it) => {
  it.effect.each(["fast", "immediate"] as const)("server stopped (%s) and started: nothing is lost", (mode) =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const started = yield* start()
      yield* started.add(keys)
      yield* started.untilWritten
      yield* stop(mode)
      yield* started.add(keys)
      yield* started.add(["new"])
      yield* started.untilFailed("Unavailable", 3)
      yield* started.add(keys, { age: 1_000 })
      yield* started.add(["disk"])
      yield* server.start
      yield* started.check()
      assert.deepStrictEqual(started.warnings, [
        "store unavailable, keeping what comes until it is back",
        "store available again"
      ])
    })
  )

  it.effect("pg_terminate_backend in mid-write: a row may have done it, and nothing is lost", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.add(keys)
      yield* started.untilWritten
      yield* inMidWrite(started, (pid) => started.admin`SELECT pg_terminate_backend(${pid})`, "Canceled")
      yield* started.check()
    })
  )

  it.effect("SIGKILL of a backend in mid-write, and the recovery from it: nothing is lost", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const started = yield* start()
      yield* started.add(keys)
      yield* started.untilWritten
      yield* inMidWrite(started, server.killBackend, "Unavailable")
      yield* started.add(["cpu"])
      yield* until(Effect.exit(started.admin`SELECT 1`), (exit) => exit._tag === "Success")
      yield* started.check()
    })
  )

  it.effect("connection refused when the application starts: it starts, and nothing is lost", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* stop()
      const client = Postgres.layerClient()
      const app = MetadataBatcher.layer({ interval: "50 millis" }).pipe(
        Layer.provide(PgPubsub.layer()),
        Layer.provideMerge(PgStore.layer()),
        Layer.provideMerge(client)
      )
      yield* Effect.gen(function* () {
        const batcher = yield* MetadataBatcher.MetadataBatcher
        const store = yield* Store
        const [agentId, collectedAt] = [makeAgentId(), yield* DateTime.now]
        const facts = keys.map((key) => ({ key, value: "7 %", error: "", collectedAt }))

        // Migrations are another matter: whoever runs them at the start has to try again.
        assert.strictEqual((yield* Effect.flip(PgMigrations.run()))._tag, "SqlError")
        const migrations = yield* PgMigrations.run().pipe(
          Effect.retry(Schedule.spaced("50 millis")),
          Effect.forkChild
        )
        yield* batcher.add(agentId, facts)
        yield* batcher.flush
        assert.deepInclude(yield* batcher.accounting, { offered: 3, pending: 3, written: 0 })
        assert.isUndefined(migrations.pollUnsafe())

        yield* server.start
        assert.deepStrictEqual(yield* Fiber.join(migrations), [])
        yield* until(batcher.accounting, ({ written }) => written === 3)
        assert.deepStrictEqual(yield* store.metadataOf([agentId]), [{ agentId, facts }])
      }).pipe(Effect.provide(app), Effect.provide(Logger.layer([])))
    })
  )

  it.effect("statement_timeout: canceled, written again, and nothing is lost", () =>
    Effect.gen(function* () {
      const started = yield* start({ client: { startupParameters: { statement_timeout: "50" } } })
      yield* started.add(keys)
      yield* started.untilWritten
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* started.lockRows
          yield* started.add(keys)
          yield* started.untilFailed("Canceled", 2)
          yield* started.add(["cpu"])
        })
      )
      yield* started.check()
    })
  )

  it.effect("rows locked for longer than lockTimeout: they wait apart, the others are written at once", () =>
    Effect.gen(function* () {
      const started = yield* start({ store: { lockTimeout: "50 millis" } })
      yield* started.add(keys)
      yield* started.untilWritten
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* started.lockRows
          yield* started.add([...keys, "new"])
          yield* started.until(started.account, ({ refused, written }) => refused === 15 && written === 20)
          yield* started.add(["cpu"])
        })
      )
      yield* started.check()
    })
  )

  it.effect("rows locked by another transaction: the write waits, and what comes meanwhile is kept", () =>
    Effect.gen(function* () {
      const started = yield* start({ store: { lockTimeout: 0 } })
      yield* started.add(keys)
      yield* started.untilWritten
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* started.lockRows
          yield* started.add(keys)
          yield* started.until(started.backends, (rows) => rows.some(({ waits }) => waits))
          yield* started.add(["cpu"])
          yield* started.add(["new"])
          yield* started.until(started.account, ({ inFlight, pending }) => inFlight === 15 && pending === 10)
        })
      )
      yield* started.check()
    })
  )

  it.effect("a CHECK refuses some rows: exactly these wait apart, until they or the table are mended", () =>
    Effect.gen(function* () {
      const started = yield* start({
        constraint: "CONSTRAINT no_bad CHECK (value <> 'bad')",
        // So that all of them are of one batch.
        batcher: { interval: "1 second" }
      })
      const keysHeld = Effect.map(started.readTable, (facts) =>
        Array.from(facts.values(), (held) => Array.from(held.keys()).sort())
      )
      yield* started.add(keys)
      yield* started.add(["broken", "disk broken"], { value: "bad" })
      yield* started.add(["new"])
      yield* started.batcher.flush
      assert.deepInclude(yield* started.account, { written: 20, refused: 10, pending: 0 })
      assert.deepStrictEqual(
        yield* keysHeld,
        started.agents.map(() => ["cpu", "disk", "new", "ram"])
      )
      // The same again, and then something that can be written under the same key.
      yield* started.add(["broken"], { value: "bad" })
      yield* started.add(["broken"], { value: "good" })
      const { superseded } = yield* started.until(started.account, ({ written }) => written === 25)
      assert.strictEqual(superseded, 10)
      yield* started.admin.unsafe(`ALTER TABLE ${started.table} DROP CONSTRAINT no_bad`)
      yield* started.check()
    })
  )

  it.effect("NUL bytes wait apart and keys too long are not taken: the others are written", () =>
    Effect.gen(function* () {
      const started = yield* start({ batcher: { interval: "1 second" } })
      yield* started.add(keys)
      yield* started.add(["nul"], { value: "a\0b", isGarbage: true })
      yield* started.add(["k".repeat(128)], { isGarbage: true })
      yield* started.add(["nul\0 in a key"], { isGarbage: true })
      yield* started.add(["new"])
      yield* started.batcher.flush
      assert.deepInclude(yield* started.account, { written: 20, refused: 10, dropped: 5, pending: 0 })
      yield* started.add(["nul"])
      yield* started.check({ dropped: 5, refused: 5 })
    })
  )

  it.effect("a grant revoked and given back: nothing is lost", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      yield* sql`CREATE ROLE writer LOGIN`
      const started = yield* start({ client: { username: "writer" } })
      const grant = sql.unsafe(`GRANT SELECT, INSERT, UPDATE ON ${started.table} TO writer`)
      yield* grant
      yield* started.add(keys)
      yield* started.untilWritten
      yield* sql.unsafe(`REVOKE INSERT ON ${started.table} FROM writer`)
      yield* started.add(keys)
      yield* started.untilFailed("Unavailable", 2)
      yield* started.add(["cpu", "new"])
      yield* grant
      yield* started.check()
    })
  )

  it.effect("a table dropped and made again: nothing is lost but what was in it", () =>
    Effect.gen(function* () {
      const started = yield* start()
      yield* started.add(keys)
      yield* started.untilWritten
      yield* started.admin.unsafe(`DROP TABLE ${started.table}`)
      yield* started.add(keys)
      yield* started.untilFailed("Unavailable", 2)
      yield* started.add(["cpu", "new"])
      yield* started.admin.unsafe(
        `CREATE TABLE ${started.table} (LIKE workspace_agent_metadata INCLUDING ALL)`
      )
      yield* started.check()
    })
  )

  it.effect("a server that becomes read-only, as after a failover, and writable again: nothing is lost", () =>
    Effect.gen(function* () {
      const started = yield* start()
      const reload = started.admin`SELECT pg_reload_conf()`
      yield* started.add(keys)
      yield* started.untilWritten
      yield* started.admin`ALTER SYSTEM SET default_transaction_read_only = on`
      yield* reload
      yield* started.until(
        started.admin<{ readonly s: string }>`SELECT current_setting('transaction_read_only') AS s`,
        ([row]) => row?.s === "on"
      )
      yield* started.add(keys)
      yield* started.untilFailed("Unavailable", 2)
      yield* started.add(["cpu", "new"])
      yield* started.admin`ALTER SYSTEM RESET default_transaction_read_only`
      yield* reload
      yield* started.check()
    })
  )

  it.effect(
    "a backend that hangs: cut by writeTimeout, written through another, and its late write is no harm",
    () =>
      Effect.gen(function* () {
        const started = yield* start({ batcher: { writeTimeout: "500 millis" } })
        yield* started.add(keys)
        yield* started.untilWritten
        const backends = yield* started.backends
        const signal = (signal: NodeJS.Signals) =>
          Effect.sync(() => {
            for (const { pid } of backends) process.kill(pid, signal)
          })
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* Effect.acquireRelease(signal("SIGSTOP"), () => signal("SIGCONT"))
            yield* started.add(keys)
            yield* started.untilFailed("Unavailable")
            yield* started.add(["cpu", "new"])
            yield* started.untilWritten
          })
        )
        yield* started.check()
      })
  )

  it.effect("answers that never arrive: what was written is written again, and counted once", () =>
    Effect.gen(function* () {
      const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = makeProxy(`${config.host}/.s.PGSQL.${config.port}`)
      const started = yield* start({
        client: { stream: proxy.stream },
        batcher: { writeTimeout: "500 millis" }
      })
      yield* started.add(keys)
      yield* started.untilWritten
      // A notification still under way would keep the muted connection, and the write would go through another.
      yield* started.batcher.flush
      const before = yield* started.readTable
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* proxy.mute
          yield* started.add(keys)
          yield* started.until(started.readTable, (facts) => !Equal.equals(facts, before))
          // The rows are there, but nobody has been told so.
          assert.deepInclude(yield* started.account, { written: 15 })
          yield* started.untilFailed("Unavailable")
          assert.deepInclude(yield* started.account, { written: 15 })
          yield* proxy.release
          yield* started.untilWritten
          assert.deepInclude(yield* started.account, { written: 30 })
        })
      )
      yield* started.check()
      assert.strictEqual((yield* started.account).written, 35)
    })
  )

  it.effect("one connection of two hangs: other batches go on through the other", () =>
    Effect.gen(function* () {
      const started = yield* start({
        batcher: { writeTimeout: "2 seconds", writeConcurrency: 2, maxBatchSize: 5 }
      })
      yield* started.add(["cpu"])
      yield* started.untilWritten
      yield* Effect.scoped(
        Effect.gen(function* () {
          const [backend] = yield* started.backends
          if (backend === undefined) return yield* Effect.die(new Error("no connection"))
          yield* Effect.acquireRelease(
            Effect.sync(() => process.kill(backend.pid, "SIGSTOP")),
            () => Effect.sync(() => process.kill(backend.pid, "SIGCONT"))
          )
          for (const key of ["a", "b", "c", "d"]) yield* started.add([key])
          yield* started.until(started.account, ({ inFlight, written }) => written === 20 && inFlight === 5)
        })
      )
      yield* started.check()
    })
  )
})
