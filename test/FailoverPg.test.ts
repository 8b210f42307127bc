/** After a failover, and before the database is as it should be: what a store does, and what it says. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as SqlClient from "effect/sql/SqlClient"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../src/PgMigrations.ts"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, factsOf, makeAgentId } from "./conformance/StoreSuite.ts"
import { captureLogs } from "./support/Fakes.ts"
import * as Postgres from "./support/Postgres.ts"
import * as TcpSwitch from "./support/TcpSwitch.ts"

/** The socket of a server that listens nowhere else. */
const socketOf = ({ host = "", port = 5432 }: PgClient.PgPoolConfig) => ({ path: `${host}/.s.PGSQL.${port}` })

const time = 1_700_000_000_000

describe("After a failover", () => {
  it.live("each session that stayed on the old server fails at most once", () =>
    Effect.gen(function* () {
      const [old, next] = yield* Effect.all([Postgres.makeServer, Postgres.makeServer], { concurrency: 2 })
      const clientOf = (server: typeof old, options?: PgClient.PgPoolConfig) =>
        Effect.provideService(Postgres.makeClient(options), EmbeddedPostgres.EmbeddedPostgres, server)
      const [onOld, onNext] = [yield* clientOf(old), yield* clientOf(next)]
      for (const sql of [onOld, onNext]) {
        yield* Effect.provideService(PgMigrations.run(), SqlClient.SqlClient, sql)
      }
      const proxy = yield* TcpSwitch.make({ target: socketOf(old.config) })
      const client = yield* clientOf(old, {
        host: "127.0.0.1",
        port: proxy.port,
        minConnections: 4,
        maxConnections: 4
      })
      const store = yield* Effect.provideService(PgStore.make(), PgClient.PgClient, client)
      const agentId = makeAgentId()
      const write = (key: number) =>
        Effect.exit(store.batchUpdateMetadata(batchOf([[agentId, `${key}`, "", time + key]])))
      const writeAll = (keys: ReadonlyArray<number>) => Effect.forEach(keys, write, { concurrency: 4 })
      assert.isTrue((yield* writeAll([0, 1, 2, 3])).every(Exit.isSuccess))

      yield* onOld`ALTER SYSTEM SET default_transaction_read_only = on`
      yield* onOld`SELECT pg_reload_conf()`
      yield* proxy.pointTo(socketOf(next.config))
      yield* Effect.sleep("200 millis")

      const rounds = yield* Effect.forEach(
        Array.from({ length: 6 }, (_, round) => round),
        (round) => writeAll([0, 1, 2, 3].map((key) => 10 * round + key))
      )
      const failures = rounds.flat().filter(Exit.isFailure)
      assert.isAtLeast(failures.length, 1)
      assert.isAtMost(failures.length, 4)
      for (const exit of failures) {
        const { reason } = yield* Effect.flip(exit)
        assert.strictEqual(reason._tag, "Unavailable")
        assert.include(reason.message, "SQLSTATE 25006")
      }
      assert.isTrue(rounds.slice(-1).flat().every(Exit.isSuccess))
      const held = yield* Effect.provideService(PgStore.make(), PgClient.PgClient, onNext)
      assert.includeMembers(Object.keys(yield* factsOf(held, agentId)), ["50", "51", "52", "53"])
    }).pipe(Effect.scoped)
  )
})

layer(Postgres.layerServer, { excludeTestServices: true, timeout: "30 seconds" })("A database", (it) => {
  /** What a store says of a database of its own, when it is built and later. */
  const saidOf = <A, E, R>(name: string, prepare: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const admin = yield* Postgres.makeClient()
      yield* admin.unsafe(`CREATE DATABASE ${name}`)
      const [lines, logging] = captureLogs()
      yield* Effect.gen(function* () {
        yield* prepare
        const store = yield* Effect.provide(PgStore.make(), logging)
        yield* Effect.ignore(store.agents({ limit: 1 }))
      }).pipe(Effect.provide(Postgres.layerClient({ database: name })))
      return lines.filter(({ level }) => level === "Warn").map(({ message }) => message)
    })

  it.effect("as it should be is not spoken of", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* saidOf("fine", PgMigrations.run()), [])
    })
  )

  it.effect("without the tables is said to have none, in one line", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* saidOf("empty", Effect.void), [
        'PgStore: the database is not as it should be: no such table: "workspace_agent_metadata", "workspace_agent_stats" (see PgMigrations)'
      ])
    })
  )

  it.effect("of a newer version is said to be newer", () =>
    Effect.gen(function* () {
      const migrate = Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* PgMigrations.run()
        yield* sql`INSERT INTO effect_metadata_batcher_migrations (migration_id, name) VALUES (99, 'later')`
      })
      assert.deepStrictEqual(yield* saidOf("newer", migrate), [
        "PgStore: the database is not as it should be: the tables were made by a newer version, migration 99 instead of 3"
      ])
    })
  )

  it.effect("that does not answer when the store is built is looked at as soon as it does", () =>
    Effect.gen(function* () {
      const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* TcpSwitch.make({ target: socketOf(config) })
      const [lines, logging] = captureLogs()
      yield* proxy.silence
      const sql = yield* Postgres.makeClient({
        host: "127.0.0.1",
        port: proxy.port,
        connectTimeout: "3 seconds"
      })
      const store = yield* PgStore.make().pipe(
        Effect.provideService(PgClient.PgClient, sql),
        Effect.provide(logging)
      )
      assert.deepStrictEqual(lines, [])
      yield* proxy.pointTo(socketOf(config))
      // The connection that was being made may have to fail first.
      yield* Effect.flip(store.agents({ limit: 1 })).pipe(
        Effect.repeat({ until: ({ message }) => message.includes("SQLSTATE") }),
        Effect.provide(logging)
      )
      assert.strictEqual(lines.length, 1)
    })
  )

  it.effect("that cannot be reached when the store is built is looked at as soon as it can be", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const sql = yield* Postgres.makeClient()
      const [lines, logging] = captureLogs()
      yield* server.stop()
      const store = yield* PgStore.make().pipe(
        Effect.provideService(PgClient.PgClient, sql),
        Effect.provide(logging)
      )
      const read = Effect.provide(Effect.flip(store.agents({ limit: 1 })), logging)
      assert.strictEqual((yield* read).reason._tag, "Unavailable")
      assert.deepStrictEqual(lines, [])
      yield* server.start
      yield* read
      yield* read
      assert.strictEqual(lines.length, 1)
      assert.include(lines[0]?.message, "no such table")
    })
  )
})
