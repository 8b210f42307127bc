/**
 * A `MetadataBatcher` on a real PostgreSQL, with a pool and a table of its own,
 * an account of all that was added to it, and a subscriber that reads an agent's
 * facts whenever it is told to, as a user interface does.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import * as BatcherMetrics from "../../src/BatcherMetrics.ts"
import type { AgentMetadata } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import { Pubsub } from "../../src/Pubsub.ts"
import { Store, type StoreErrorReason } from "../../src/Store.ts"
import { assertAddsUp, makeAgentId } from "./Fakes.ts"
import * as Postgres from "./Postgres.ts"

export interface Options {
  readonly batcher?: MetadataBatcher.Options
  /** How the batcher connects. */
  readonly client?: Partial<PgClient.PgPoolConfig>
  readonly store?: Omit<PgStore.Options, "metadataTable">
  /** The SQL of a constraint on the table. */
  readonly constraint?: string
}

/** Asks again until the answer is as said, for at most 30 seconds. */
export const until = <A, E, R>(effect: Effect.Effect<A, E, R>, isSo: (answer: A) => boolean) =>
  Effect.repeat(effect, { until: isSo, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeout("30 seconds")
  )

/** The newest value of each key of each agent. */
type Facts = Map<AgentId, Map<string, string>>

const toFacts = (agents: ReadonlyArray<AgentMetadata>): Facts =>
  new Map(
    agents.map(
      ({ agentId, facts }) => [agentId, new Map(facts.map(({ key, value }) => [key, value]))] as const
    )
  )

const epoch = 1_700_000_000_000

export const start = Effect.fnUntraced(function* (options?: Options) {
  const applicationName = `batcher ${crypto.randomUUID()}`
  const table = `t_${crypto.randomUUID().replaceAll("-", "")}`
  const admin = yield* PgClient.PgClient
  yield* admin.unsafe(
    `CREATE TABLE ${table} (LIKE workspace_agent_metadata INCLUDING ALL${options?.constraint ? `, ${options.constraint}` : ""})`
  )

  const agents = Array.from({ length: 5 }, makeAgentId)
  const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()
  const metrics = BatcherMetrics.make({ prefix: "agentapi", kind: "metadata" })

  const warnings: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (LogLevel.isGreaterThanOrEqualTo(logLevel, "Warn")) {
      warnings.push(String(Array.isArray(message) ? message[0] : message))
    }
  })

  const client = yield* Postgres.makeClient({ applicationName, ...options?.client })
  const context = Context.make(PgClient.PgClient, client)
  const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
  const batcher = yield* MetadataBatcher.make({ interval: "50 millis", ...options?.batcher }).pipe(
    Effect.provideServiceEffect(Store, PgStore.make({ ...options?.store, metadataTable: table })),
    Effect.provideServiceEffect(Pubsub, PgPubsub.make()),
    Effect.provideService(Metric.MetricRegistry, registry),
    Effect.provide(Logger.layer([logger])),
    Effect.provide(context),
    Scope.provide(scope)
  )

  const reader = yield* PgStore.make({ metadataTable: table })
  const readTable = Effect.map(reader.metadataOf(agents), toFacts)

  // Reads only when told to: what is announced too early it never gets to see.
  const seen: Facts = new Map()
  const watcher = yield* PgPubsub.make({ maxReconnectDelay: "50 millis" })
  const signals = yield* Effect.provide(
    watcher.subscribe(MetadataBatcher.metadataBatchChannel),
    Logger.layer([])
  )
  yield* Queue.take(signals).pipe(
    Effect.flatMap((signal) => {
      const changed =
        signal._tag === "Message" ? Result.getOrElse(AgentIdChunks.decode(signal.payload), () => []) : agents
      const ours = changed.filter((agentId) => agents.includes(agentId))
      return Effect.map(reader.metadataOf(ours), (read) => {
        for (const [agentId, facts] of toFacts(read)) seen.set(agentId, facts)
      })
    }),
    // A reading lost to the fault is made up for by the next notification of the agent.
    Effect.ignore,
    Effect.forever,
    Effect.forkScoped
  )

  const newest: Facts = new Map(agents.map((agentId) => [agentId, new Map()]))
  const newestAt = new Map<string, number>()
  let offered = 0
  let time = epoch

  /** Adds one fact per agent and key and expects each to be held in the end, unless it can never be or is older. */
  const add = Effect.fnUntraced(function* (
    keys: ReadonlyArray<string>,
    how: { readonly value?: string; readonly age?: number; readonly isGarbage?: boolean } = {}
  ) {
    time += 1
    const collectedAt = time - (how.age ?? 0)
    for (const agentId of agents) {
      const facts = keys.map((key) => ({
        key,
        value: how.value ?? `value ${offered++}`,
        error: "",
        collectedAt: DateTime.makeUnsafe(collectedAt)
      }))
      for (const { key, value } of how.isGarbage ? [] : facts) {
        if ((newestAt.get(agentId + key) ?? 0) > collectedAt) continue
        newestAt.set(agentId + key, collectedAt)
        newest.get(agentId)?.set(key, value)
      }
      yield* batcher.add(agentId, facts)
    }
  })

  const failures = (reason: StoreErrorReason["_tag"]) =>
    Metric.value(Metric.withAttributes(metrics.writeFailures, { reason })).pipe(
      Effect.provideService(Metric.MetricRegistry, registry),
      Effect.map(({ count }) => count)
    )

  const account = Effect.tap(batcher.accounting, assertAddsUp)
  const untilAllButRefused = (expected: number) =>
    until(
      account,
      ({ inFlight, pending, queued, refused }) => inFlight + pending + queued === 0 && refused === expected
    )
  const untilWritten = untilAllButRefused(0)

  return {
    batcher,
    agents,
    table,
    admin,
    /** What the batcher has warned about so far. */
    warnings,
    account,
    add,
    readTable,
    until: <A>(effect: Effect.Effect<A, unknown>, isSo: (answer: A) => boolean) => until(effect, isSo),
    untilWritten,
    untilAllButRefused,
    /** Waits until so many writes have failed for this reason. */
    untilFailed: (reason: StoreErrorReason["_tag"], times = 1) =>
      until(failures(reason), (count) => count >= times),
    /** The batcher's connections, as the server sees them. */
    backends: admin<{ readonly pid: number; readonly waits: boolean }>`
      SELECT pid, wait_event_type IS NOT DISTINCT FROM 'Lock' AS waits
      FROM pg_stat_activity WHERE application_name = ${applicationName} ORDER BY backend_start`,
    /** Keeps every write of these agents waiting for a lock for as long as the scope is open. */
    lockRows: Effect.gen(function* () {
      const connection = yield* admin.reserve
      yield* connection.executeRaw("BEGIN", [])
      yield* Effect.addFinalizer(() => Effect.ignore(connection.executeRaw("ROLLBACK", [])))
      yield* connection.executeRaw(`SELECT FROM ${table} FOR UPDATE`, [])
    }),
    /**
     * Once all is well again: everything but garbage is held with its newest
     * value, nothing is left over, given up or counted twice, and whoever reads
     * upon a notification has seen it all.
     */
    check: Effect.fnUntraced(function* (garbage = { dropped: 0, refused: 0 }) {
      yield* batcher.flush
      yield* untilAllButRefused(garbage.refused)
      // The notification of a write may have been lost with its connection; it is not what is checked here.
      yield* add(["last"])
      yield* batcher.flush
      const { discarded, dropped, offered, refused, superseded, written } = yield* untilAllButRefused(
        garbage.refused
      )
      assert.deepStrictEqual({ discarded, dropped, refused }, { discarded: 0, ...garbage })
      assert.strictEqual(offered, written + superseded + dropped + refused)
      assert.deepStrictEqual(yield* readTable, newest)
      yield* until(
        Effect.sync(() => agents.filter((agentId) => seen.get(agentId)?.get("last") === undefined)),
        (missing) => missing.length === 0
      )
      assert.deepStrictEqual(seen, newest)
    })
  }
})
