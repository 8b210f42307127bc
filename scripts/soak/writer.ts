/**
 * One of several processes that write the same keys: offers reports as fast as
 * they are written, and at the end prints what it offered and what became of it.
 *
 * Clocks are wrong by up to two seconds: for each agent one process is ahead of
 * all others, for the next agent the next process. On top of that every report
 * was collected up to two seconds earlier or later.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import type * as Batcher from "../../src/Batcher.ts"
import type { Metadata } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import { DatabaseFault, Store, type StoreError } from "../../src/Store.ts"
import { agentIds, factsPerReport, turn } from "../bench/workload.ts"

export interface Input {
  readonly connection: PgClient.PgPoolConfig
  /** Which one of `processes` this is. */
  readonly process: number
  readonly processes: number
  readonly seconds: number
  readonly agents: number
}

export interface Output {
  readonly account: Batcher.Accounting
  /** Failed statements by SQLSTATE. */
  readonly failures: Readonly<Record<string, number>>
  /** For every key the latest time offered, and all values offered for it. */
  readonly newest: ReadonlyArray<readonly [key: string, at: number, values: ReadonlyArray<string>]>
}

/** How far clocks are wrong, and how far reports are from their clocks, at most. */
const maxSkew = 2_000
const maxJitter = 2_000

/** Times are whole multiples of this, so that now and then two are equal. */
const resolution = 10

const run = Effect.fnUntraced(function* (input: Input) {
  const failures: Record<string, number> = {}
  const count = ({ reason }: StoreError) =>
    Effect.sync(() => {
      const sqlState = reason.cause instanceof DatabaseFault ? reason.cause.sqlState : "none"
      failures[sqlState] = (failures[sqlState] ?? 0) + 1
    })
  const countingStore = Layer.effect(
    Store,
    Effect.map(PgStore.make(), (store) =>
      Store.of({
        ...store,
        batchUpdateMetadata: (batch) => Effect.tapError(store.batchUpdateMetadata(batch), count)
      })
    )
  )
  const app = MetadataBatcher.layer({ writeConcurrency: 2 }).pipe(
    Layer.provide([countingStore, PgPubsub.layer()]),
    Layer.provide(PgClient.layer(input.connection))
  )

  const ids = agentIds(input.agents)
  const newest = new Map<string, { at: number; values: Array<string> }>()
  let sequence = 0
  const makeReport = (agent: number): ReadonlyArray<Metadata> => {
    const agentId = ids[agent] as (typeof ids)[number]
    const rank = (input.process + agent) % input.processes
    const skew = maxSkew * ((2 * rank) / Math.max(1, input.processes - 1) - 1)
    const wrongBy = skew + maxJitter * (2 * Math.random() - 1)
    const at = Math.round((Date.now() + wrongBy) / resolution) * resolution
    const collectedAt = DateTime.makeUnsafe(at)
    return Array.from({ length: factsPerReport }, (_, i) => {
      const [key, value] = [`metadata_key_${i}`, `${input.process}:${sequence++}`]
      const held = newest.get(`${agentId} ${key}`)
      if (held === undefined || held.at < at) newest.set(`${agentId} ${key}`, { at, values: [value] })
      else if (held.at === at) held.values.push(value)
      return { key, value, error: "", collectedAt }
    })
  }

  const batcher = yield* Effect.scoped(
    Effect.gen(function* () {
      const batcher = Context.get(yield* Layer.build(app), MetadataBatcher.MetadataBatcher)
      const hasRoom = Effect.map(
        batcher.accounting,
        ({ inFlight, pending, queued }) => queued === 0 && pending + inFlight <= 1_500
      )
      const end = Date.now() + input.seconds * 1_000
      while (Date.now() < end) {
        for (let i = 0; i < 50; i++) {
          const agent = Math.floor(Math.random() * ids.length)
          batcher.addUnsafe(ids[agent] as (typeof ids)[number], makeReport(agent))
        }
        do yield* Effect.promise(turn)
        while (!(yield* hasRoom))
      }
      return batcher
    })
  )
  return {
    account: yield* batcher.accounting,
    failures,
    newest: Array.from(newest, ([key, { at, values }]) => [key, at, values] as const)
  } satisfies Output
})

const output = await Effect.runPromise(
  run(JSON.parse(process.argv[2] ?? "{}") as Input).pipe(
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)
process.stdout.write(JSON.stringify(output))
