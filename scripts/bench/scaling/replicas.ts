/**
 * Replicas on one database: each is a process with a batcher of its own, which is
 * given facts of agents of its own for as long as it has room for them.
 */
import { setTimeout as sleep } from "node:timers/promises"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EmbeddedPostgres from "../../../src/app/EmbeddedPostgres.ts"
import * as MetadataBatcher from "../../../src/MetadataBatcher.ts"
import * as PgPubsub from "../../../src/PgPubsub.ts"
import * as PgStore from "../../../src/PgStore.ts"
import { hasRoom } from "../ours.ts"
import { sampleIn } from "../sample.ts"
import { cpuSeconds } from "../serverCpu.ts"
import { summarize } from "../statistics.ts"
import { makeReports, reportAt, stride, turn, w1 } from "../workload.ts"

const counts = [1, 2, 3, 4]
const { agents } = w1

/** Until all processes of a sample stand and run at speed. */
const warmUpMillis = 5_000

interface Input {
  readonly config: PgClient.PgPoolConfig
  /** Which part of the agents reports to this replica. */
  readonly replica: number
  /** Milliseconds since the epoch between which it is measured. */
  readonly from: number
  readonly to: number
}

interface Written {
  readonly facts: number
  readonly failed: number
}

export interface Replicas {
  readonly replicas: number
  /** Facts per second, of all together. */
  readonly factsPerSecond: number
  /** Seconds of the server's processor per million facts. */
  readonly serverCpu: number
  readonly failed: number
}

const replicate = Effect.fnUntraced(function* ({ config, from, replica, to }: Input) {
  const batcher = yield* MetadataBatcher.make().pipe(
    Effect.provide(Layer.mergeAll(PgStore.layer(), PgPubsub.layer({ connection: config })))
  )
  const reports = makeReports({ agents: counts.length * agents, rounds: 1 }).slice(
    replica * agents,
    (replica + 1) * agents
  )
  let next = 0
  const produceUntil = async (end: number) => {
    while (Date.now() < end) {
      for (let i = 0; i < stride; i++) {
        const { agentId, facts } = reportAt(reports, next++)
        batcher.addUnsafe(agentId, facts)
      }
      do await turn()
      while (!Effect.runSync(hasRoom(batcher)))
    }
  }
  yield* Effect.promise(() => produceUntil(from))
  const before = yield* batcher.accounting
  yield* Effect.promise(() => produceUntil(to))
  const after = yield* batcher.accounting
  return {
    facts: after.written + after.superseded - before.written - before.superseded,
    failed: after.dropped + after.discarded
  } satisfies Written
}, Effect.scoped)

export const sample = (input: Input): Promise<Written> =>
  Effect.runPromise(Effect.provide(replicate(input), PgClient.layer(input.config)))

const measure = async (
  replicas: number,
  seconds: number,
  config: PgClient.PgPoolConfig,
  postmaster: number
): Promise<Replicas> => {
  const from = Date.now() + warmUpMillis
  const to = from + seconds * 1_000
  const written = Promise.all(
    Array.from({ length: replicas }, (_, replica) =>
      sampleIn<Written>(import.meta.filename, { config, replica, from, to } satisfies Input)
    )
  )
  await sleep(from - Date.now())
  const before = cpuSeconds(postmaster) ?? Number.NaN
  await sleep(to - Date.now())
  const server = (cpuSeconds(postmaster) ?? Number.NaN) - before
  const sum = (of: (written: Written) => number, all: ReadonlyArray<Written>) =>
    all.reduce((total, one) => total + of(one), 0)
  const all = await written
  const facts = sum((one) => one.facts, all)
  return {
    replicas,
    factsPerSecond: facts / seconds,
    serverCpu: (server * 1e6) / facts,
    failed: sum((one) => one.failed, all)
  }
}

export const measureReplicas = Effect.fnUntraced(function* (seconds: number, rounds: number) {
  const { config, processId } = yield* EmbeddedPostgres.EmbeddedPostgres
  const sql = yield* PgClient.PgClient
  const postmaster = yield* processId
  const samples: Array<Replicas> = []
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < counts.length; i++) {
      const replicas = counts[(i + round) % counts.length] as number
      yield* sql`CHECKPOINT`
      samples.push(yield* Effect.promise(() => measure(replicas, seconds, config, postmaster)))
    }
  }
  return counts.map((replicas): Replicas => {
    const own = samples.filter((one) => one.replicas === replicas)
    const median = (of: (one: Replicas) => number) => summarize(own.map(of)).median
    return {
      replicas,
      factsPerSecond: median((one) => one.factsPerSecond),
      serverCpu: median((one) => one.serverCpu),
      failed: own.reduce((failed, one) => failed + one.failed, 0)
    }
  })
})
