/**
 * W1 into a real PostgreSQL, with one connection listening: the batcher with
 * the real `PgStore` and `PgPubsub`, a bare loop that sends what they send, and
 * the writer one would have without a batcher. The bare loop once more, for 100
 * rounds, with the first version's statement and table and with today's.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import type { MetadataBatch } from "../../src/Metadata.ts"
import { metadataBatchChannel } from "../../src/MetadataBatcher.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import { load, loadPostgres } from "./library.ts"
import { columns, NewestWins } from "./newestWins.ts"
import { drain, using } from "./ours.ts"
import { newOverOld, type Row } from "./report.ts"
import { sampleRounds } from "./sample.ts"
import { cpuSeconds, postmasterOf } from "./serverCpu.ts"
import { ratio, summarize } from "./statistics.ts"
import { addWithin, callers, layerTracer } from "./telemetry.ts"
import { factsPerReport, makeReports, type Report, reportAt, stride, w1 } from "./workload.ts"

const labels = {
  bare: "bare loop, the same statements",
  one: "effect-metadata-batcher",
  two: "effect-metadata-batcher, writeConcurrency 2",
  traced: "effect-metadata-batcher, everything traced",
  unbatched: "unbatched, 8 fibers",
  before: "bare loop, the first statement and table",
  after: "bare loop, those of today, as long"
}
type Name = keyof typeof labels
const names = Object.keys(labels) as ReadonlyArray<Name>

interface Input {
  readonly contestant: Name
  readonly facts: number
  readonly config: PgClient.PgPoolConfig
  /** Sources of the revision; the working tree's by default. */
  readonly sources?: string | undefined
}

interface Sample {
  readonly factsPerSecond: number
  /** Of the server, in seconds per million facts; null where there is no /proc. */
  readonly cpu: number | null
  /** Of the table and of its index, in MB, at the end. */
  readonly megabytes: readonly [table: number, index: number]
}

// As the first version wrote it, whose table had a fill factor of 90.
const firstWrite = `
INSERT INTO workspace_agent_metadata AS t (workspace_agent_id, key, value, error, collected_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS u(a, k, v, e, c)
ORDER BY a, k
ON CONFLICT (workspace_agent_id, key) DO UPDATE
SET value = excluded.value, error = excluded.error, collected_at = excluded.collected_at
WHERE excluded.collected_at >= t.collected_at`

const array = (values: ReadonlyArray<unknown>, oid: number) => Result.getOrThrow(PgTypes.array(values, oid))

/** The texts that `PgStore` and `PgPubsub` send, read off them as they do. */
const statements = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const sent: Array<string> = []
  const recorded = Effect.map(sql.reserve, (connection) =>
    Object.assign(Object.create(connection) as typeof connection, {
      executeRaw: (text: string, parameters: ReadonlyArray<unknown>) => {
        sent.push(text)
        return connection.executeRaw(text, parameters)
      }
    })
  )
  const recording = new Proxy(sql, {
    get: (target, name) => {
      if (name === "reserve") return recorded
      if (name !== "unsafe") return Reflect.get(target, name)
      return (...[text, parameters]: Parameters<PgClient.PgClient["unsafe"]>) => {
        sent.push(text)
        return target.unsafe(text, parameters)
      }
    }
  })
  const provideRecording = Effect.provideService(PgClient.PgClient, recording)
  const store = yield* provideRecording(PgStore.make())
  const pubsub = yield* provideRecording(PgPubsub.make())
  const [report] = makeReports({ agents: 1, rounds: 1 })
  yield* store.batchUpdateMetadata(columns(report === undefined ? [] : [report]))
  yield* pubsub.publish(
    metadataBatchChannel,
    AgentIdChunks.encode(report === undefined ? [] : [report.agentId])
  )
  const find = (part: string) => sent.find((text) => text.includes(part)) ?? ""
  const [write, notify] = [find("INSERT INTO"), find("pg_notify")]
  return {
    write: (batch: MetadataBatch, text = write) =>
      sql.unsafe(text, [
        array(batch.agentIds, PgTypes.OID.uuid),
        array(batch.keys, PgTypes.OID.text),
        array(batch.values, PgTypes.OID.text),
        array(batch.errors, PgTypes.OID.text),
        array(batch.collectedAt, PgTypes.OID.timestamptz)
      ]).withoutTransform,
    notify: (batch: MetadataBatch) =>
      sql.unsafe(notify, [
        PgTypes.text(metadataBatchChannel),
        array(AgentIdChunks.encode(Array.from(new Set(batch.agentIds))), PgTypes.OID.text)
      ]).withoutTransform
  }
})

type Produce = (reports: ReadonlyArray<Report>, count: number) => Effect.Effect<void, unknown>

const bare = (text?: string) =>
  Effect.map(
    statements,
    ({ notify, write }): Produce =>
      Effect.fnUntraced(function* (reports, count) {
        const fold = new NewestWins()
        for (let i = 0; i < count; i++) {
          fold.add(reportAt(reports, i))
          if (fold.size < w1.batchSize) continue
          const batch = fold.take()
          yield* write(batch, text)
          yield* notify(batch)
        }
      })
  )

const unbatched = Effect.map(
  statements,
  ({ notify, write }): Produce =>
    (reports, count) => {
      let next = 0
      const fiber = Effect.gen(function* () {
        while (next < count) {
          const batch = columns([reportAt(reports, next++)])
          yield* write(batch)
          yield* notify(batch)
        }
      })
      return Effect.all(
        Array.from({ length: 8 }, () => fiber),
        { concurrency: "unbounded", discard: true }
      )
    }
)

const batched = (writeConcurrency: number, traced: boolean) =>
  Effect.fnUntraced(function* (sources: string | undefined) {
    const { openWith } = using(yield* Effect.promise(() => load(sources)))
    const { PgPubsub, PgStore } = yield* Effect.promise(() => loadPostgres(sources))
    const postgres = Layer.merge(PgStore.layer(), PgPubsub.layer())
    const live = traced ? Layer.provideMerge(postgres, layerTracer(1)) : postgres
    const spans = callers(w1.agents, traced ? 1 : 0)
    const sql = yield* Effect.context<PgClient.PgClient>()
    const { batcher } = yield* Effect.acquireRelease(
      Effect.promise(() => openWith(Layer.provide(live, Layer.succeedContext(sql)), { writeConcurrency })),
      ({ close }) => Effect.promise(close)
    )
    const hasRoom = Effect.map(
      batcher.accounting,
      ({ pending, queued }) => queued === 0 && pending <= 4 * w1.batchSize
    )
    const produce: Produce = Effect.fnUntraced(function* (reports, count) {
      for (let i = 1; i <= count; i++) {
        yield* addWithin(batcher, reportAt(reports, i - 1), spans, i - 1)
        if (i % stride === 0) while (!(yield* hasRoom)) yield* Effect.sleep(1)
      }
      yield* drain(batcher)
      const { superseded } = yield* batcher.accounting
      if (superseded > 0) yield* Effect.die(new Error(`${superseded} facts were not written but superseded`))
    })
    return produce
  })

const contestants = {
  bare: () => bare(),
  before: () => bare(firstWrite),
  after: () => bare(),
  one: batched(1, false),
  two: batched(2, false),
  traced: batched(1, true),
  unbatched: () => unbatched
}

const measure = Effect.fnUntraced(function* ({ contestant, facts, sources }: Input) {
  const sql = yield* PgClient.PgClient
  const [{ directory = "" } = {}] = yield* sql<{ directory: string }>`
    SELECT current_setting('data_directory') AS directory`
  const postmaster = postmasterOf(directory)
  const reports = makeReports(w1)

  const { PgMigrations } = yield* Effect.promise(() => loadPostgres(sources))
  yield* PgMigrations.run()
  yield* sql.unsafe(
    `ALTER TABLE workspace_agent_metadata SET (fillfactor = ${contestant === "before" ? 90 : 50})`
  )
  yield* sql`TRUNCATE workspace_agent_metadata`
  const produce = yield* contestants[contestant](sources)
  yield* produce(reports, w1.agents)
  yield* sql`VACUUM ANALYZE workspace_agent_metadata`
  yield* sql`CHECKPOINT`

  const cpuBefore = cpuSeconds(postmaster)
  const start = performance.now()
  yield* produce(reports, facts / factsPerReport)
  const seconds = (performance.now() - start) / 1e3
  const cpuAfter = cpuSeconds(postmaster)
  const cpu = cpuBefore === null || cpuAfter === null ? null : ((cpuAfter - cpuBefore) * 1e6) / facts
  const [size] = yield* sql<{ readonly heap: bigint; readonly index: bigint }>`
    SELECT pg_relation_size('workspace_agent_metadata') AS heap, pg_indexes_size('workspace_agent_metadata') AS index`
  const megabytes = [Number(size?.heap) / 1e6, Number(size?.index) / 1e6] as const
  return { factsPerSecond: facts / seconds, cpu, megabytes } satisfies Sample
}, Effect.scoped)

export const sample = (input: Input): Promise<Sample> =>
  Effect.runPromise(Effect.provide(measure(input), PgClient.layer(input.config)))

/** Counts the agents that one connection, which listens to this database, is told of. */
export const countTold = Effect.gen(function* () {
  const pubsub = yield* PgPubsub.make()
  const signals = yield* pubsub.subscribe(metadataBatchChannel)
  let told = 0
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(Queue.takeAll(signals), (taken) => {
        for (const signal of taken) {
          if (signal._tag === "Message") told += signal.payload.length / AgentIdChunks.uuidBase64Size
        }
      })
    )
  )
  return () => told
})

/** Samples every input once a round, with a subscriber to each database that has to be told of all reports. */
const sampleTold = Effect.fnUntraced(function* (inputs: Readonly<Record<string, Input>>, rounds: number) {
  const databases = new Set(Object.values(inputs).map(({ config }) => config))
  const counts = yield* Effect.forEach(databases, (config) =>
    Effect.flatMap(Layer.build(PgClient.layer(config)), (client) => Effect.provide(countTold, client))
  )
  const samples = yield* Effect.promise(() => sampleRounds<Sample>(import.meta.filename, inputs, rounds))
  const reports = Object.values(inputs).reduce(
    (sum, { facts }) => sum + w1.agents + facts / factsPerReport,
    0
  )
  yield* Effect.sleep("1 second")
  const told = counts.reduce((sum, count) => sum + count(), 0)
  if (told < reports * rounds) {
    yield* Effect.die(new Error(`the subscribers were told of ${told} of ${reports * rounds} reports`))
  }
  return samples
}, Effect.scoped)

interface Settings {
  readonly quick: boolean
  readonly rounds: number
}

const factsOf = ({ quick }: Settings): Readonly<Record<Name, number>> =>
  quick
    ? {
        bare: 20_000,
        one: 20_000,
        two: 20_000,
        traced: 20_000,
        unbatched: 10_000,
        before: 20_000,
        after: 20_000
      }
    : {
        bare: 200_000,
        one: 200_000,
        two: 200_000,
        traced: 200_000,
        unbatched: 60_000,
        before: 2_000_000,
        after: 2_000_000
      }

const title = "W1 into PostgreSQL, one connection listening"

/** Each revision has a database of its own on the same server, which it migrates itself. */
const runAgainst = Effect.fnUntraced(function* (against: string, settings: Settings) {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const sql = yield* PgClient.PgClient
  yield* sql`CREATE DATABASE before`
  const facts = factsOf(settings)
  const before = { config: { ...config, database: "before" }, sources: against }
  const inputs: Record<string, Input> = {}
  for (const name of batchedNames) {
    inputs[name] = { contestant: name, facts: facts[name], config }
    inputs[`${name} before`] = { contestant: name, facts: facts[name], ...before }
  }
  return yield* sampleTold(inputs, settings.rounds)
})

const layerServer = EmbeddedPostgres.layerClient().pipe(Layer.provideMerge(EmbeddedPostgres.layer()))

const batchedNames = ["one", "two", "traced"] as const

export const postgresAgainst = async (against: string, settings: Settings): Promise<Row> => {
  const samples = await Effect.runPromise(Effect.provide(runAgainst(against, settings), layerServer))
  const pairs = (label: string, unit: string, of: (sampled: Sample) => number) =>
    batchedNames.map((name) => ({
      label: `${labels[name]}${label}`,
      unit,
      now: (samples[name] ?? []).map(of),
      before: (samples[`${name} before`] ?? []).map(of)
    }))
  return newOverOld({
    row: "postgres",
    title,
    unit: "",
    pairs: [
      ...pairs("", "facts/s", ({ factsPerSecond }) => factsPerSecond),
      ...pairs(": server CPU", "s per million facts", ({ cpu }) => cpu ?? Number.NaN)
    ]
  })
}

const runRounds = Effect.fnUntraced(function* (settings: Settings) {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const facts = factsOf(settings)
  const inputs = names.map((contestant) => [contestant, { contestant, facts: facts[contestant], config }])
  return yield* sampleTold(Object.fromEntries(inputs), settings.rounds)
})

export const postgres = async (settings: Settings): Promise<Row> => {
  const samples = await Effect.runPromise(Effect.provide(runRounds(settings), layerServer))
  const speed = (name: Name) => (samples[name] ?? []).map(({ factsPerSecond }) => factsPerSecond)
  const cpu = (name: Name) => (samples[name] ?? []).map((sampled) => sampled.cpu ?? Number.NaN)
  const sizes = (name: Name, which: 0 | 1) =>
    summarize((samples[name] ?? []).map(({ megabytes }) => megabytes[which])).median.toFixed(1)
  return {
    row: "postgres",
    title,
    measured: names.map((name) => {
      const { median } = summarize(cpu(name))
      return {
        name,
        label: labels[name],
        unit: "facts/s",
        value: summarize(speed(name)),
        notes: {
          "server CPU": Number.isNaN(median) ? "not available" : `${median.toFixed(1)} s per million facts`,
          "table and index": `${sizes(name, 0)} and ${sizes(name, 1)} MB`
        }
      }
    }),
    targets: [
      {
        what: "facts/s over the bare loop's",
        value: ratio(speed("one"), speed("bare")),
        target: { atLeast: 0.95 }
      },
      {
        what: "facts/s over the unbatched writer's",
        value: ratio(speed("one"), speed("unbatched")),
        target: { atLeast: 2.3 }
      },
      {
        what: "server CPU per fact over the unbatched writer's",
        value: ratio(cpu("one"), cpu("unbatched")),
        target: { atMost: 1 / 3 }
      },
      {
        what: "server CPU per fact over the first version's statement and table",
        value: ratio(cpu("after"), cpu("before")),
        target: { atMost: 0.85 }
      },
      {
        what: "facts/s, writeConcurrency 2 over 1",
        value: ratio(speed("two"), speed("one")),
        target: { atLeast: 1.4 }
      },
      {
        what: "facts/s, tracing off over on",
        value: ratio(speed("one"), speed("traced")),
        target: { atMost: 1.15 }
      }
    ]
  }
}
