/**
 * What writing costs: commits/s of 1, 4 and 16 writers, a report of 10 facts each
 * or batches of 500 facts, announced not at all, by `NOTIFY`, or through Redis;
 * of each the CPU and the write-ahead log; and how large the rows are.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import { AgentId } from "../../../src/AgentId.ts"
import * as AgentIdChunks from "../../../src/AgentIdChunks.ts"
import type { AgentStatsRow } from "../../../src/AgentStats.ts"
import * as EmbeddedPostgres from "../../../src/app/EmbeddedPostgres.ts"
import * as PgPubsub from "../../../src/PgPubsub.ts"
import * as PgStore from "../../../src/PgStore.ts"
import type * as Pubsub from "../../../src/Pubsub.ts"
import * as RedisPubsub from "../../../src/RedisPubsub.ts"
import { find, startRedis } from "../../cluster/programs.ts"
import { columns } from "../newestWins.ts"
import { cpuSeconds } from "../serverCpu.ts"
import { summarize } from "../statistics.ts"
import { factsPerReport, makeReports, w1 } from "../workload.ts"

const channel = "scaling"
const { agents, batchSize } = w1

const reports = makeReports({ agents, rounds: 4 })

interface Sample {
  readonly writesPerSecond: number
  readonly factsPerSecond: number
  /** Seconds per million facts, of the server and of this process. */
  readonly serverCpu: number
  readonly clientCpu: number
  /** Bytes of write-ahead log per fact. */
  readonly wal: number
}

export type Announce = "none" | "NOTIFY" | "Redis"

export interface Measured {
  readonly announce: Announce
  readonly factsPerWrite: number
  readonly writers: number
  readonly sample: Sample
}

export interface Writes {
  readonly writes: ReadonlyArray<Measured>
  /** Of batches of 1,024 rows of statistics by one writer: seconds of the server's CPU per million rows, bytes of log per row. */
  readonly stats: { readonly serverCpu: number; readonly wal: number }
  /** Bytes per row of the table and of its indexes. */
  readonly sizes: Readonly<Record<"metadata" | "stats", { readonly table: number; readonly indexes: number }>>
}

/** Seconds of CPU that the server has used. */
const cpuOf = (postmaster: number): number => cpuSeconds(postmaster) ?? Number.NaN

/** Writes as fast as so many writers get answers. */
const measure = (options: {
  readonly sql: PgClient.PgClient
  readonly store: Effect.Success<ReturnType<typeof PgStore.make>>
  readonly pubsub: Pubsub.Pubsub["Service"] | undefined
  readonly postmaster: number
  readonly factsPerWrite: number
  readonly writers: number
  readonly seconds: number
}) =>
  Effect.gen(function* () {
    const { factsPerWrite, postmaster, pubsub, seconds, sql, store, writers } = options
    const perWrite = factsPerWrite / factsPerReport
    let next = 0
    let writes = 0
    // Writers that begin at different places wait for none of each other's rows, as replicas with agents of their own.
    const write = Effect.suspend(() => {
      const at = (next++ * perWrite) % (reports.length - perWrite)
      const taken = reports.slice(at, at + perWrite)
      const announced = pubsub?.publish(channel, AgentIdChunks.encode(taken.map(({ agentId }) => agentId)))
      return Effect.andThen(
        store.batchUpdateMetadata(columns(taken)),
        Effect.tap(announced ?? Effect.void, () => Effect.sync(() => writes++))
      )
    })
    const walBefore = yield* walPosition(sql)
    const [serverBefore, clientBefore] = [cpuOf(postmaster), process.cpuUsage()]
    const start = performance.now()
    const writing = yield* Effect.forkChild(
      Effect.all(
        Array.from({ length: writers }, () => Effect.forever(write)),
        { concurrency: "unbounded" }
      )
    )
    yield* Effect.sleep(seconds * 1_000)
    const [elapsed, done] = [(performance.now() - start) / 1_000, writes]
    const client = process.cpuUsage(clientBefore)
    const serverAfter = cpuOf(postmaster)
    yield* Fiber.interrupt(writing)
    const facts = done * factsPerWrite
    return {
      writesPerSecond: done / elapsed,
      factsPerSecond: facts / elapsed,
      serverCpu: ((serverAfter - serverBefore) * 1e6) / facts,
      clientCpu: (client.user + client.system) / facts,
      wal: ((yield* walPosition(sql)) - walBefore) / facts
    } satisfies Sample
  })

const statsRow = (): AgentStatsRow => {
  const id = crypto.randomUUID()
  return {
    id,
    createdAt: DateTime.makeUnsafe(Date.now()),
    agentId: reports[Math.floor(Math.random() * agents)]?.agentId ?? AgentId.make(id),
    userId: id,
    templateId: id,
    workspaceId: id,
    connectionsByProto: { ssh: 1, vscode: 2 },
    connectionCount: 3n,
    rxPackets: 40n,
    rxBytes: 31_000n,
    txPackets: 60n,
    txBytes: 52_000n,
    sessionCountVSCode: 2n,
    sessionCountJetBrains: 0n,
    sessionCountReconnectingPTY: 0n,
    sessionCountSSH: 1n,
    connectionMedianLatencyMs: 20
  }
}

const walPosition = (sql: PgClient.PgClient) =>
  Effect.map(
    sql<{ at: number }>`SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS at`,
    ([row]) => row?.at ?? 0
  )

const measureStats = Effect.fnUntraced(function* (
  sql: PgClient.PgClient,
  store: Effect.Success<ReturnType<typeof PgStore.make>>,
  postmaster: number
) {
  const batches = Array.from({ length: 100 }, () => Array.from({ length: 1_024 }, statsRow))
  const rows = 1_024 * batches.length
  const [walBefore, cpuBefore] = [yield* walPosition(sql), cpuOf(postmaster)]
  for (const batch of batches) yield* store.batchInsertStats(batch)
  return {
    serverCpu: ((cpuOf(postmaster) - cpuBefore) * 1e6) / rows,
    wal: ((yield* walPosition(sql)) - walBefore) / rows
  }
})

/** Hears all that is announced, as a replica does. */
const listen = (pubsub: Pubsub.Pubsub["Service"]) =>
  Effect.flatMap(pubsub.subscribe(channel), (signals) =>
    Effect.forkScoped(Effect.forever(Queue.takeAll(signals)))
  )

const sizesOf = (sql: PgClient.PgClient) =>
  Effect.gen(function* () {
    yield* sql`TRUNCATE workspace_agent_metadata, workspace_agent_stats`
    yield* sql`INSERT INTO workspace_agent_metadata
      SELECT md5((n / 10)::text)::uuid, 'metadata_key_' || n % 10, repeat('v', 20), '', now() FROM generate_series(0, 199999) AS n`
    yield* sql`INSERT INTO workspace_agent_stats (id, created_at, user_id, agent_id, workspace_id, template_id, connections_by_proto)
      SELECT gen_random_uuid(), now() + n * interval '1 ms', gen_random_uuid(), md5((n % 1000)::text)::uuid, gen_random_uuid(), gen_random_uuid(), '{"ssh": 1, "vscode": 2}'
      FROM generate_series(0, 199999) AS n`
    yield* sql`VACUUM ANALYZE`
    const sizeOf = (table: string) =>
      Effect.map(
        sql<{
          table: number
          indexes: number
        }>`SELECT pg_table_size(${table}::text::regclass) / 200000.0::float8 AS "table",
          pg_indexes_size(${table}::text::regclass) / 200000.0::float8 AS indexes`,
        ([row]) => ({ table: row?.table ?? 0, indexes: row?.indexes ?? 0 })
      )
    return {
      metadata: yield* sizeOf("workspace_agent_metadata"),
      stats: yield* sizeOf("workspace_agent_stats")
    } satisfies Record<string, { table: number; indexes: number }> as Writes["sizes"]
  })

const summary = (samples: ReadonlyArray<Sample>): Sample => {
  const median = (of: (sample: Sample) => number) => summarize(samples.map(of)).median
  return {
    writesPerSecond: median((sample) => sample.writesPerSecond),
    factsPerSecond: median((sample) => sample.factsPerSecond),
    serverCpu: median((sample) => sample.serverCpu),
    clientCpu: median((sample) => sample.clientCpu),
    wal: median((sample) => sample.wal)
  }
}

export const measureWrites = Effect.fnUntraced(function* (seconds: number, rounds: number) {
  const { config, processId } = yield* EmbeddedPostgres.EmbeddedPostgres
  const sql = yield* PgClient.PgClient
  const store = yield* PgStore.make()
  const postmaster = yield* processId
  const notify = yield* PgPubsub.make({ connection: config })
  yield* listen(notify)

  const program = find("redis-server")
  if (program === undefined) console.log("left out: redis-server is not on the PATH")
  const redis =
    program === undefined
      ? undefined
      : yield* Effect.gen(function* () {
          const { port } = yield* Effect.acquireRelease(
            Effect.promise(() => startRedis(program)),
            ({ stop }) => Effect.promise(stop)
          )
          return yield* RedisPubsub.make((settings) =>
            NodeRedis.layer({ url: `redis://127.0.0.1:${port}`, ...settings })
          )
        })
  if (redis !== undefined) yield* listen(redis)

  const pubsubs: ReadonlyArray<readonly [Announce, Pubsub.Pubsub["Service"] | undefined]> = [
    ["none", undefined],
    ["NOTIFY", notify],
    ...(redis === undefined ? [] : [["Redis", redis] as const])
  ]
  const contestants = [factsPerReport, batchSize].flatMap((factsPerWrite) =>
    [1, 4, 16].flatMap((writers) =>
      pubsubs.map(([announce, pubsub]) => ({ announce, pubsub, factsPerWrite, writers }))
    )
  )
  yield* store.batchUpdateMetadata(columns(reports.slice(0, agents)))
  yield* sql`VACUUM ANALYZE`
  const samples = new Map(contestants.map((contestant) => [contestant, [] as Array<Sample>]))
  for (let round = 0; round < rounds; round++) {
    for (let n = 0; n < contestants.length; n++) {
      const contestant = contestants[(n * 7 + round) % contestants.length]
      if (contestant === undefined) continue
      yield* sql`CHECKPOINT`
      samples.get(contestant)?.push(yield* measure({ ...contestant, sql, store, postmaster, seconds }))
    }
  }
  const writes = contestants.map(({ announce, factsPerWrite, writers }, n) => ({
    announce,
    factsPerWrite,
    writers,
    sample: summary(samples.get(contestants[n] as (typeof contestants)[number]) ?? [])
  }))
  return {
    writes,
    stats: yield* measureStats(sql, store, postmaster),
    sizes: yield* sizesOf(sql)
  } satisfies Writes
})
