import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as SqlError from "effect/sql/SqlError"
import * as EmbeddedPostgres from "../src/app/EmbeddedPostgres.ts"
import { classify, judge, withoutValues } from "../src/internal/postgres/sqlError.ts"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, factsOf, makeAgentId } from "./conformance/StoreSuite.ts"
import * as Postgres from "./support/Postgres.ts"

const time = 1_700_000_000_000

const meaningOf = (reason: SqlError.SqlErrorReason): string =>
  classify(new SqlError.SqlError({ reason })).reason._tag

const serverError = (sqlState: string, severity = "ERROR") => ({
  cause: Object.assign(new Error("secret"), { code: sqlState, severity })
})

describe("classify", () => {
  it.each([
    // [SQLSTATE, its name, what it means for the batch]
    ["08006", "connection failure", "Unavailable"],
    ["0A000", "feature not supported", "Unavailable"],
    ["21000", "cardinality violation", "Rejected"],
    ["22001", "string data right truncation", "Rejected"],
    ["22003", "numeric value out of range", "Rejected"],
    ["22008", "datetime field overflow", "Rejected"],
    ["22021", "character not in repertoire", "Rejected"],
    ["22P02", "invalid text representation", "Rejected"],
    ["22P05", "untranslatable character", "Rejected"],
    ["23502", "not null violation", "Rejected"],
    ["23503", "foreign key violation", "Rejected"],
    ["23505", "unique violation", "Rejected"],
    ["23514", "check violation", "Rejected"],
    ["25006", "read only SQL transaction", "Unavailable"],
    ["25P02", "in failed SQL transaction", "Unavailable"],
    ["26000", "invalid SQL statement name", "Unavailable"],
    ["28000", "invalid authorization specification", "Unavailable"],
    ["28P01", "invalid password", "Unavailable"],
    ["3D000", "invalid catalog name", "Unavailable"],
    ["40001", "serialization failure", "Unavailable"],
    ["40P01", "deadlock detected", "Unavailable"],
    ["42501", "insufficient privilege", "Unavailable"],
    ["42P01", "undefined table", "Unavailable"],
    ["42703", "undefined column", "Unavailable"],
    ["44000", "with check option violation", "Rejected"],
    ["53100", "disk full", "Unavailable"],
    ["53200", "out of memory", "Unavailable"],
    ["53300", "too many connections", "Unavailable"],
    ["54000", "program limit exceeded", "Unavailable"],
    ["55P03", "lock not available", "Unavailable"],
    ["57014", "query canceled", "Canceled"],
    ["57P01", "admin shutdown", "Unavailable"],
    ["57P02", "crash shutdown", "Unavailable"],
    ["57P03", "cannot connect now", "Unavailable"],
    ["57P05", "idle session timeout", "Unavailable"],
    ["58030", "io error", "Unavailable"],
    ["P0001", "raise exception", "Rejected"],
    ["XX000", "internal error", "Unavailable"]
  ])("%s, %s, is %s", (sqlState, _, meaning) => {
    assert.strictEqual(meaningOf(new SqlError.UnknownError(serverError(sqlState))), meaning)
  })

  it("goes by the SQLSTATE, whatever reason the driver gives", () => {
    assert.strictEqual(meaningOf(new SqlError.StatementTimeoutError(serverError("57014"))), "Canceled")
    assert.strictEqual(meaningOf(new SqlError.ConstraintError(serverError("23502"))), "Rejected")
    assert.strictEqual(meaningOf(new SqlError.DeadlockError(serverError("40P01"))), "Unavailable")
  })

  it.each(["ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "EPIPE", "ETIMEDOUT"])("%s is Unavailable", (code) => {
    assert.strictEqual(
      meaningOf(new SqlError.ConnectionError({ cause: Object.assign(new Error("…"), { code }) })),
      "Unavailable"
    )
  })

  it("takes what the client could not encode for the data's fault", () => {
    const codecError = new PgTypes.CodecError({ message: "Expected a string for uuid" })
    const encodeError = new PgProtocol.EncodeError({ message: "Too many parameters" })
    assert.strictEqual(meaningOf(new SqlError.UnknownError({ cause: codecError })), "Rejected")
    assert.strictEqual(meaningOf(new SqlError.UnknownError({ cause: encodeError })), "Rejected")
  })

  it.each([undefined, null, "a string", new Error("…"), { code: 42 }])(
    "takes the unknown for passing: %s",
    (cause) => {
      assert.strictEqual(meaningOf(new SqlError.UnknownError({ cause })), "Unavailable")
    }
  )

  it("says what the server named, and not what it said", () => {
    const cause = Object.assign(new Error("secret"), {
      code: "23514",
      severity: "ERROR",
      detail: "secret",
      constraint: "cpu_is_number",
      table: "facts"
    })
    const error = new SqlError.SqlError({ reason: new SqlError.ConstraintError({ cause }) })
    const { reason } = classify(error)
    assert.strictEqual(
      reason.message,
      'the store rejected the batch: SQLSTATE 23514, constraint "cpu_is_number", table "facts"'
    )
    assert.notInclude(JSON.stringify(reason), "secret")
  })
})

describe("judge", () => {
  const verdictOf = (reason: SqlError.SqlErrorReason): string => {
    const verdict = judge(withoutValues(new SqlError.SqlError({ reason })))
    if (verdict._tag === "Decided") return verdict.error.reason._tag
    return verdict.isLost ? "ask: the connection was lost" : "ask"
  }

  it.each([
    ["23514", "ERROR", "Rejected"],
    ["22P02", "ERROR", "Rejected"],
    ["P0001", "ERROR", "Rejected"],
    ["57014", "ERROR", "Canceled"],
    // A trigger may raise any of these, so the table has to be asked.
    ["25006", "ERROR", "ask"],
    ["42P01", "ERROR", "ask"],
    ["42501", "ERROR", "ask"],
    ["53100", "ERROR", "ask"],
    ["55P03", "ERROR", "ask"],
    ["XX001", "ERROR", "ask"],
    // No trigger ends a session with these words.
    ["57P01", "FATAL", "ask: the connection was lost"],
    ["XX000", "PANIC", "ask: the connection was lost"]
  ])("%s as %s: %s", (sqlState, severity, verdict) => {
    assert.strictEqual(verdictOf(new SqlError.UnknownError(serverError(sqlState, severity))), verdict)
  })

  it("whoever got no connection has met an outage, whatever was said", () => {
    const operation = "connect"
    assert.strictEqual(
      verdictOf(new SqlError.UnknownError({ ...serverError("53300", "FATAL"), operation })),
      "Unavailable"
    )
  })

  it("a statement that is too large for the protocol is Canceled: a smaller one is not", () => {
    const cause = new PgProtocol.EncodeError({ message: "Too large" })
    assert.strictEqual(verdictOf(new SqlError.UnknownError({ cause })), "Canceled")
  })
})

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "A write that fails on a real server",
  (it) => {
    /** How a write fails through a client with other settings, or against another table. */
    const failureOf = Effect.fnUntraced(function* (
      config: Partial<PgClient.PgPoolConfig>,
      options?: PgStore.Options,
      value = "7 %"
    ) {
      const sql = yield* Postgres.makeClient(config)
      const store = yield* Effect.provideService(PgStore.make(options), PgClient.PgClient, sql)
      const { reason } = yield* Effect.flip(
        store.batchUpdateMetadata(batchOf([[makeAgentId(), "cpu", value, time]]))
      )
      return reason._tag
    })

    /** Keeps every writer waiting for as long as the scope is open. */
    const lockTable = Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const connection = yield* sql.reserve
      yield* connection.executeRaw("BEGIN", [])
      yield* Effect.addFinalizer(() => Effect.orDie(connection.executeRaw("ROLLBACK", [])))
      yield* connection.executeRaw("LOCK TABLE workspace_agent_metadata IN EXCLUSIVE MODE", [])
    })

    const role = (name: string, options: string) =>
      Effect.flatMap(PgClient.PgClient, (sql) => sql.unsafe(`CREATE ROLE ${name} LOGIN ${options}`))

    it.effect("by statement_timeout is Canceled", () =>
      Effect.gen(function* () {
        yield* lockTable
        assert.strictEqual(yield* failureOf({ startupParameters: { statement_timeout: "50" } }), "Canceled")
      })
    )

    it.effect("by lock_timeout is Unavailable", () =>
      Effect.gen(function* () {
        yield* lockTable
        assert.strictEqual(yield* failureOf({ startupParameters: { lock_timeout: "50" } }), "Unavailable")
      })
    )

    it.effect("because its backend was terminated is Canceled, and the next one succeeds", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const store = yield* PgStore.make({ lockTimeout: 0 })
        const agentId = makeAgentId()
        const write = store.batchUpdateMetadata(batchOf([[agentId, "cpu", "7 %", time]]))
        yield* write
        const failure = yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* sql.reserve
            yield* connection.executeRaw("BEGIN", [])
            yield* Effect.addFinalizer(() => Effect.orDie(connection.executeRaw("ROLLBACK", [])))
            yield* connection.executeRaw("SELECT FROM workspace_agent_metadata FOR UPDATE", [])
            const writer = yield* Effect.forkChild(Effect.flip(write))
            const terminate = sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO%'`
            yield* terminate.pipe(
              Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("10 millis") })
            )
            return yield* Fiber.join(writer)
          })
        )
        assert.strictEqual(failure.reason._tag, "Canceled")
        yield* write
        assert.deepStrictEqual(yield* factsOf(store, agentId), { cpu: ["7 %", "", time] })
      })
    )

    it.effect("on a read-only server is Unavailable", () =>
      Effect.gen(function* () {
        const readOnly = { startupParameters: { default_transaction_read_only: "on" } }
        assert.strictEqual(yield* failureOf(readOnly), "Unavailable")
      })
    )

    it.effect("for want of the table or of a grant is Unavailable", () =>
      Effect.gen(function* () {
        yield* role("stranger", "")
        assert.strictEqual(yield* failureOf({}, { metadataTable: "dropped" }), "Unavailable")
        assert.strictEqual(yield* failureOf({ username: "stranger" }), "Unavailable")
      })
    )

    it.effect("because there are too many connections is Unavailable", () =>
      Effect.gen(function* () {
        yield* role("limited", "CONNECTION LIMIT 0")
        assert.strictEqual(yield* failureOf({ username: "limited" }), "Unavailable")
      })
    )

    it.effect("because no such role, database or server is there is Unavailable", () =>
      Effect.gen(function* () {
        assert.strictEqual(
          yield* failureOf({ username: "nobody", password: Redacted.make("") }),
          "Unavailable"
        )
        assert.strictEqual(yield* failureOf({ database: "nowhere" }), "Unavailable")
        assert.strictEqual(yield* failureOf({ host: "/nowhere" }), "Unavailable")
      })
    )

    it.effect("because a column is narrower, or a parent is missing, is Rejected", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE narrow (LIKE workspace_agent_metadata INCLUDING ALL)`
        yield* sql`ALTER TABLE narrow ALTER value TYPE varchar(3)`
        yield* sql`CREATE TABLE parent (id uuid PRIMARY KEY)`
        yield* sql`CREATE TABLE child (LIKE workspace_agent_metadata INCLUDING ALL,
        FOREIGN KEY (workspace_agent_id) REFERENCES parent (id))`
        assert.strictEqual(yield* failureOf({}, { metadataTable: "narrow" }, "7.12 %"), "Rejected")
        assert.strictEqual(yield* failureOf({}, { metadataTable: "child" }), "Rejected")
      })
    )

    it.effect("while the server is down is Unavailable, and the same client writes once it is up", () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const store = yield* PgStore.make()
        const agentId = makeAgentId()
        const write = store.batchUpdateMetadata(batchOf([[agentId, "cpu", "7 %", time]]))
        yield* write
        yield* server.stop()
        assert.strictEqual((yield* Effect.flip(write)).reason._tag, "Unavailable")
        yield* server.start
        yield* write
        assert.deepStrictEqual(yield* factsOf(store, agentId), { cpu: ["7 %", "", time] })
      })
    )
  }
)
