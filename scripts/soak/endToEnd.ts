/**
 * Does everything once that this library does with a PostgreSQL, and says of
 * each what became of it.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { AgentId } from "../../src/AgentId.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../../src/MetadataWatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgRetention from "../../src/PgRetention.ts"
import * as PgStore from "../../src/PgStore.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as StatsBatcher from "../../src/StatsBatcher.ts"
import * as Store from "../../src/Store.ts"

export interface Server {
  /** How the application connects. */
  readonly client: PgClient.PgPoolConfig
  /** How it connects for listening, where that differs. */
  readonly listen?: PgClient.PgPoolConfig | undefined
}

const agentId = (n: number) => AgentId.make(`00000000-0000-4000-8000-${n.toString().padStart(12, "0")}`)

const fact = (key: string, value: string) =>
  Effect.map(DateTime.now, (collectedAt) => ({ key, value, error: "", collectedAt }))

const valuesOf = (n: number) =>
  Effect.flatMap(Store.Store, (store) =>
    Effect.map(store.metadataOf([agentId(n)]), ([agent]) =>
      (agent?.facts ?? []).map(({ value }) => value).sort()
    )
  )

const expect = (what: string, isSo: boolean) =>
  isSo ? Effect.void : Effect.fail(new Error(`not so: ${what}`))

const write = Effect.gen(function* () {
  const batcher = yield* MetadataBatcher.MetadataBatcher
  yield* batcher.add(agentId(1), [yield* fact("cpu", "1"), yield* fact("disk", "x")])
  yield* batcher.flush
  // Often, since a pooler may lead each time to another session, which has prepared nothing.
  for (let n = 10; n < 40; n++) {
    yield* batcher.add(agentId(1), [yield* fact("cpu", `${n}`)])
    yield* batcher.flush
    yield* expect("the newest is held", (yield* valuesOf(1)).join() === `${n},x`)
  }
})

const refuse = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const batcher = yield* MetadataBatcher.MetadataBatcher
  yield* sql`ALTER TABLE workspace_agent_metadata ADD CONSTRAINT no_bad CHECK (value <> 'bad')`
  yield* batcher.add(agentId(2), [yield* fact("cpu", "good"), yield* fact("disk", "bad")])
  yield* batcher.add(agentId(3), [yield* fact("cpu", "good")])
  yield* batcher.flush
  yield* expect(
    "what is good is held",
    (yield* valuesOf(2)).join() === "good" && (yield* valuesOf(3)).join() === "good"
  )
  yield* sql`ALTER TABLE workspace_agent_metadata DROP CONSTRAINT no_bad`
})

const notify = Effect.gen(function* () {
  const pubsub = yield* Pubsub.Pubsub
  const signals = yield* pubsub.subscribe("end_to_end")
  yield* pubsub.publish("end_to_end", ["hello"])
  const isHello = (signal: Pubsub.Message | Pubsub.Resync) =>
    signal._tag === "Message" && signal.payload === "hello"
  yield* Effect.repeat(Queue.take(signals), { until: isHello })
})

const watch = Effect.gen(function* () {
  const watcher = yield* MetadataWatcher.MetadataWatcher
  const batcher = yield* MetadataBatcher.MetadataBatcher
  yield* watcher.watch(agentId(4)).pipe(
    Stream.tap(({ facts }) =>
      facts.length > 0
        ? Effect.void
        : Effect.flatMap(fact("cpu", "seen"), (seen) => batcher.add(agentId(4), [seen]))
    ),
    Stream.takeUntil(({ facts }) => facts.some(({ value }) => value === "seen")),
    Stream.runDrain
  )
})

const statistics = (n: number, createdAt: DateTime.Utc) => ({
  createdAt,
  agentId: agentId(n),
  userId: agentId(n),
  templateId: agentId(n),
  workspaceId: agentId(n),
  connectionsByProto: { ssh: 1 },
  connectionCount: 1n,
  rxPackets: 1n,
  rxBytes: 1n,
  txPackets: 1n,
  txBytes: 1n,
  sessionCountVSCode: 0n,
  sessionCountJetBrains: 0n,
  sessionCountReconnectingPTY: 0n,
  sessionCountSSH: 1n,
  connectionMedianLatencyMs: 1
})

const stats = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const batcher = yield* StatsBatcher.StatsBatcher
  const now = yield* DateTime.now
  yield* batcher.add(statistics(1, now))
  yield* batcher.add(statistics(2, DateTime.subtract(now, { days: 9 })))
  yield* batcher.flush
  const [row] = yield* sql<{ count: number }>`SELECT count(*)::int AS count FROM workspace_agent_stats`
  yield* expect("both rows are held", row?.count === 2)
})

const retain = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  yield* PgRetention.run({ stats: "1 day", agentsUnseen: "1 day" })
  const [row] = yield* sql<{ count: number }>`SELECT count(*)::int AS count FROM workspace_agent_stats`
  yield* expect("the old row is gone", row?.count === 1)
  yield* expect("the facts are there", (yield* valuesOf(1)).length === 2)
})

type Live =
  | MetadataBatcher.MetadataBatcher
  | MetadataWatcher.MetadataWatcher
  | StatsBatcher.StatsBatcher
  | Pubsub.Pubsub
  | Store.Store
  | PgClient.PgClient
  | Scope.Scope

const withTables: Readonly<Record<string, Effect.Effect<void, unknown, Live>>> = {
  write,
  refuse,
  notify,
  watch,
  stats,
  retain
}

/** What an end to end run tries, in this order. */
export const steps = ["migrate", ...Object.keys(withTables)] as ReadonlyArray<string>

const outcome = <A, E, R>(step: Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(Effect.timeout(step, "10 seconds")), (exit) => {
    if (Exit.isSuccess(exit)) return "ok"
    return String(Cause.squash(exit.cause)).split("\n")[0]?.slice(0, 120) ?? "failed"
  })

/** Runs every step in an empty database; says of each `ok` or what went wrong. */
export const endToEnd = Effect.fnUntraced(function* (
  server: Server,
  options?: { readonly partitioned?: boolean; readonly isMigrated?: boolean }
) {
  const client = PgClient.layer(server.client)
  const live = Layer.mergeAll(
    MetadataBatcher.layer({ interval: "50 millis" }),
    MetadataWatcher.layer({ minInterval: "10 millis" }),
    StatsBatcher.layer()
  ).pipe(
    Layer.provideMerge([PgStore.layer(), PgPubsub.layer({ connection: server.listen ?? server.client })]),
    Layer.provideMerge(client)
  )
  const outcomes: Record<string, string> = {}
  outcomes["migrate"] = options?.isMigrated
    ? "ok"
    : yield* outcome(Effect.provide(PgMigrations.run({ partitioned: options?.partitioned }), client))
  if (outcomes["migrate"] !== "ok") return outcomes
  yield* Effect.gen(function* () {
    for (const [name, step] of Object.entries(withTables))
      outcomes[name] = yield* outcome(Effect.scoped(step))
  }).pipe(Effect.provide(live))
  return outcomes
})
