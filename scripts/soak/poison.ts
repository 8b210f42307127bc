/**
 * What garbage costs everybody else: rows written per second into PostgreSQL
 * while 1 % of what is reported is poisoned, over the figure without, in one run.
 *
 *   node scripts/soak/poison.ts [--rounds <n>] [--seconds <n>]
 *
 * - `nul`: a NUL byte in the value, which is found before a statement is sent;
 * - `fixed`: a value that a CHECK of the table refuses, always of the same keys;
 * - `random`: the same, of any keys, another 1 % each time;
 * - `statistics`: reports of connection statistics that a CHECK refuses, which
 *   never come again, over clean ones.
 *
 * 2,000 agents report 10 facts each, over and over, as fast as they are written.
 * Every key has been reported once before anything is counted. A row that has
 * been refused waits apart, and so does what comes for its key: `fixed` costs
 * next to nothing once the keys are known. Of `random` keys the server finds
 * others in every batch, and they cost what finding them costs.
 *
 * Also printed: transaction ids per batch, the notification's among them. Exits
 * with 1 if a share or a number of ids is not what it should be.
 */
import { parseArgs } from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import type { AgentStats } from "../../src/AgentStats.ts"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import type * as Batcher from "../../src/Batcher.ts"
import type { Metadata } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import * as StatsBatcher from "../../src/StatsBatcher.ts"
import { Store } from "../../src/Store.ts"
import { hasRoom } from "../bench/ours.ts"
import { ratio, summarize } from "../bench/statistics.ts"
import { agentIds, factsPerReport, stride } from "../bench/workload.ts"

/** One row in this many is poisoned. */
const every = 100

const poisons = {
  clean: () => undefined,
  nul: (_: number) => (Math.random() * every < 1 ? "\0" : undefined),
  fixed: (key: number) => (key % every === 0 ? "bad" : undefined),
  random: () => (Math.random() * every < 1 ? "bad" : undefined)
} satisfies Record<string, (key: number) => string | undefined>

export type Poison = keyof typeof poisons

/** What is measured, and what it is compared with. */
const figures = ["clean", "nul", "fixed", "random", "cleanStatistics", "statistics"] as const
type Figure = (typeof figures)[number]
const cleanOf = (figure: Figure): Figure => (/statistics/i.test(figure) ? "cleanStatistics" : "clean")

/** The least share of the clean figure. */
const least: Readonly<Record<Figure, number>> = {
  clean: 0,
  nul: 0.9,
  fixed: 0.9,
  random: 0.53,
  cleanStatistics: 0,
  statistics: 0.5
}

/** The most transaction ids per batch, beyond those of the clean figure. */
const mostIds: Partial<Record<Figure, number>> = { nul: 0.1, fixed: 1, random: 1, statistics: 20 }

export interface Measured {
  readonly rowsPerSecond: number
  readonly idsPerBatch: number
  /** What became of what was offered. */
  readonly since: Readonly<Record<keyof Batcher.Accounting, number>>
}

const ids = agentIds(2_000)
const keys = Array.from({ length: factsPerReport }, (_, i) => `metadata_key_${i}`)

const reportOf = (poison: Poison, n: number, collectedAt: DateTime.Utc): ReadonlyArray<Metadata> =>
  keys.map((key, position) => {
    const bad = poisons[poison]((n % ids.length) * factsPerReport + position)
    return { key, value: bad ?? `value ${n}`, error: "", collectedAt }
  })

const statsOf = (isPoisoned: boolean, n: number, createdAt: DateTime.Utc): AgentStats => ({
  createdAt,
  agentId: ids[n % ids.length] as (typeof ids)[number],
  userId: ids[0] as string,
  templateId: ids[1] as string,
  workspaceId: ids[2] as string,
  connectionsByProto: { ssh: 1 },
  connectionCount: 1n,
  rxPackets: 2n,
  rxBytes: isPoisoned && Math.random() * every < 1 ? -1n : 3n,
  txPackets: 4n,
  txBytes: 5n,
  sessionCountVSCode: 6n,
  sessionCountJetBrains: 7n,
  sessionCountReconnectingPTY: 8n,
  sessionCountSSH: 9n,
  connectionMedianLatencyMs: 1.5
})

/** The id that the next transaction will have; asking for it takes none. */
const nextTransaction = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const [row] = yield* sql<{ readonly id: number }>`
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::float8 AS id`
  return row?.id ?? Number.NaN
})

/** A store that counts the batches it is given. A row that is tried again alone is none. */
const layerStore = (written: { batches: number }) =>
  Layer.effect(
    Store,
    Effect.map(PgStore.make(), (store) => {
      const count = (size: number) => {
        if (size > 1) written.batches += 1
      }
      return Store.of({
        ...store,
        batchUpdateMetadata: (batch) =>
          Effect.suspend(() => {
            count(batch.keys.length)
            return store.batchUpdateMetadata(batch)
          }),
        batchInsertStats: (rows) =>
          Effect.suspend(() => {
            count(rows.length)
            return store.batchInsertStats(rows)
          })
      })
    })
  )

/** Adds `stride` reports at a time, for as long as `goesOn`, as fast as they are written. */
const offer = Effect.fnUntraced(function* (
  batcher: Pick<MetadataBatcher.MetadataBatcher["Service"], "accounting" | "flush">,
  addNth: (n: number, at: DateTime.Utc) => void,
  goesOn: (offered: number) => boolean
) {
  let offered = 0
  while (goesOn(offered)) {
    const at = yield* DateTime.now
    for (let i = 0; i < stride; i++) addNth(offered++, at)
    do yield* Effect.yieldNow
    while (!(yield* hasRoom(batcher)))
  }
  yield* batcher.flush
})

const measureWith = Effect.fnUntraced(function* (
  batcher: Pick<MetadataBatcher.MetadataBatcher["Service"], "accounting" | "flush">,
  addNth: (n: number, at: DateTime.Utc) => void,
  written: { batches: number },
  milliseconds: number
): Effect.fn.Return<Measured, unknown, PgClient.PgClient> {
  yield* offer(batcher, addNth, (offered) => offered < ids.length)
  const before = yield* batcher.accounting
  const [idsBefore, batchesBefore, start] = [yield* nextTransaction, written.batches, performance.now()]
  yield* offer(batcher, addNth, () => performance.now() - start < milliseconds)
  const seconds = (performance.now() - start) / 1000
  const after = yield* batcher.accounting
  const names = Object.keys(after) as ReadonlyArray<keyof typeof after>
  const since = Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as Record<
    keyof typeof after,
    number
  >
  if (after.dropped + after.discarded > 0) return yield* Effect.die(new Error(JSON.stringify(after)))
  return {
    rowsPerSecond: since.written / seconds,
    idsPerBatch: ((yield* nextTransaction) - idsBefore) / (written.batches - batchesBefore),
    since
  }
})

/** A batcher of its own for every figure, so that none starts with what another has learned. */
const measureStatistics = (isPoisoned: boolean, milliseconds: number) =>
  Effect.suspend(() => {
    const written = { batches: 0 }
    return Effect.gen(function* () {
      const batcher = yield* StatsBatcher.StatsBatcher
      const add = (n: number, at: DateTime.Utc) => void batcher.addUnsafe(statsOf(isPoisoned, n, at))
      return yield* measureWith(batcher, add, written, milliseconds)
    }).pipe(Effect.provide(StatsBatcher.layer().pipe(Layer.provide(layerStore(written))), { local: true }))
  })

const measureMetadata = (poison: Poison, milliseconds: number) =>
  Effect.suspend(() => {
    const written = { batches: 0 }
    const layer = MetadataBatcher.layer().pipe(Layer.provide([layerStore(written), PgPubsub.layer()]))
    return Effect.gen(function* () {
      const batcher = yield* MetadataBatcher.MetadataBatcher
      const add = (n: number, at: DateTime.Utc) =>
        void batcher.addUnsafe(ids[n % ids.length] as (typeof ids)[number], reportOf(poison, n, at))
      return yield* measureWith(batcher, add, written, milliseconds)
    }).pipe(Effect.provide(layer, { local: true }))
  })

/** Makes the tables refuse what is poisoned. */
export const refuseBad = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  yield* sql`ALTER TABLE workspace_agent_metadata ADD CHECK (value <> 'bad')`
  yield* sql`ALTER TABLE workspace_agent_stats ADD CHECK (rx_bytes >= 0)`
})

/** Offers poisoned rows for so many milliseconds, as fast as they are written. */
export const measure = (figure: Figure, milliseconds: number) =>
  figure === "cleanStatistics" || figure === "statistics"
    ? measureStatistics(figure === "statistics", milliseconds)
    : measureMetadata(figure, milliseconds)

const program = (rounds: number, seconds: number) =>
  Effect.gen(function* () {
    yield* refuseBad
    const measured = new Map(figures.map((figure) => [figure, [] as Array<Measured>]))
    for (const figure of figures) yield* measure(figure, 1_000)
    for (let round = 0; round < rounds; round++) {
      for (const figure of figures) measured.get(figure)?.push(yield* measure(figure, seconds * 1_000))
    }
    const of = (figure: Figure, what: "rowsPerSecond" | "idsPerBatch") =>
      (measured.get(figure) ?? []).map((each) => each[what])
    let isKept = true
    for (const figure of figures) {
      const clean = cleanOf(figure)
      const rows = summarize(of(figure, "rowsPerSecond"))
      const share = ratio(of(figure, "rowsPerSecond"), of(clean, "rowsPerSecond"))
      const ids = summarize(of(figure, "idsPerBatch")).median
      const more = ids - summarize(of(clean, "idsPerBatch")).median
      console.log(
        `${figure.padEnd(16)} ${Math.round(rows.median).toLocaleString("en-US").padStart(8)} rows/s` +
          `   ${share.median.toFixed(2)} of clean (${share.min.toFixed(2)} to ${share.max.toFixed(2)})` +
          `   ${ids.toFixed(2)} transaction ids per batch`
      )
      isKept &&= share.median >= least[figure] && more <= (mostIds[figure] ?? 0.1)
    }
    return isKept
  })

const server = PgMigrations.layer().pipe(
  Layer.provideMerge(EmbeddedPostgres.layerClient()),
  Layer.provide(EmbeddedPostgres.layer())
)

const main = async () => {
  const { values } = parseArgs({
    options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "3" } }
  })
  const isKept = await Effect.runPromise(
    program(Number(values.rounds), Number(values.seconds)).pipe(
      Effect.provide(server),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  )
  console.log(isKept ? "kept" : "NOT kept: some poison costs too much")
  process.exitCode = isKept ? 0 : 1
}

if (import.meta.main) await main()
