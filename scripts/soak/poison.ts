/**
 * What garbage costs everybody else: facts per second into PostgreSQL while 1 %
 * of them are poisoned, over the figure without, in one run.
 *
 *   node scripts/soak/poison.ts [--rounds <n>] [--seconds <n>]
 *
 * - `nul`: a NUL byte in the value, which is found before a statement is sent;
 * - `fixed`: a value that a CHECK of the table refuses, always of the same keys;
 * - `random`: the same, of any keys, another 1 % each time.
 *
 * 2,000 agents report 10 facts each, over and over, as fast as they are written.
 * The aim is more than half of the clean figure. A NUL byte keeps far above it;
 * what only the server can find lands around it, a bad row costing a third of a
 * millisecond there, and is held to a third. Exits with 1 below that.
 */
import { parseArgs } from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import type { Metadata } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import { hasRoom } from "../bench/ours.ts"
import { ratio, summarize } from "../bench/statistics.ts"
import { agentIds, factsPerReport, stride } from "../bench/workload.ts"

/** One fact in this many is poisoned. */
const every = 100

const poisons = {
  clean: () => undefined,
  nul: (_: number) => (Math.random() * every < 1 ? "\0" : undefined),
  fixed: (key: number) => (key % every === 0 ? "bad" : undefined),
  random: () => (Math.random() * every < 1 ? "bad" : undefined)
} satisfies Record<string, (key: number) => string | undefined>

type Poison = keyof typeof poisons

/** The least share of the clean figure. */
const least: Readonly<Record<Poison, number>> = { clean: 0, nul: 0.5, fixed: 1 / 3, random: 1 / 3 }

const ids = agentIds(2_000)
const keys = Array.from({ length: factsPerReport }, (_, i) => `metadata_key_${i}`)

/** Offers for so many milliseconds, as fast as it is written, and returns the facts per second. */
const measure = Effect.fnUntraced(function* (poison: Poison, milliseconds: number) {
  const batcher = yield* MetadataBatcher.MetadataBatcher
  const before = yield* batcher.accounting
  const valueOf = poisons[poison]
  const start = performance.now()
  let reports = 0
  let poisoned = 0
  while (performance.now() - start < milliseconds) {
    const collectedAt = yield* DateTime.now
    for (let i = 0; i < stride; i++, reports++) {
      const agent = reports % ids.length
      const facts = keys.map((key, position): Metadata => {
        const bad = valueOf(agent * factsPerReport + position)
        if (bad !== undefined) poisoned++
        return { key, value: bad ?? `value ${reports}`, error: "", collectedAt }
      })
      batcher.addUnsafe(ids[agent] as (typeof ids)[number], facts)
    }
    do yield* Effect.yieldNow
    while (!(yield* hasRoom(batcher)))
  }
  yield* batcher.flush
  const after = yield* batcher.accounting
  const since = (name: keyof typeof after) => after[name] - before[name]
  const seconds = (performance.now() - start) / 1000
  const waiting = after.pending + after.queued + after.inFlight
  const good = since("offered") - poisoned
  const isFound = poisoned === 0 || since("refused") + since("discarded") > 0
  // A newer fact of a key replaces the poisoned one that waits apart.
  if (since("dropped") > 0 || !isFound || since("written") + since("superseded") < good - waiting) {
    return yield* Effect.die(new Error(`${poison}: ${poisoned} poisoned, but ${JSON.stringify(after)}`))
  }
  return since("offered") / seconds
})

const program = (rounds: number, seconds: number) =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    yield* sql`ALTER TABLE workspace_agent_metadata ADD CHECK (value <> 'bad')`
    const names = Object.keys(poisons) as ReadonlyArray<Poison>
    const figures = new Map(names.map((name) => [name, [] as Array<number>]))
    for (const name of names) yield* Effect.provide(measure(name, 1_000), makeBatcher, { local: true })
    for (let round = 0; round < rounds; round++) {
      for (const name of names) {
        const figure = yield* Effect.provide(measure(name, seconds * 1_000), makeBatcher, { local: true })
        figures.get(name)?.push(figure)
      }
    }
    const clean = figures.get("clean") ?? []
    const shares = names.map((name) => ({
      name,
      factsPerSecond: summarize(figures.get(name) ?? []),
      share: ratio(figures.get(name) ?? [], clean)
    }))
    for (const { factsPerSecond, name, share } of shares) {
      console.log(
        `${name.padEnd(8)} ${Math.round(factsPerSecond.median).toLocaleString("en-US").padStart(8)} facts/s` +
          `   ${share.median.toFixed(2)} of clean (${share.min.toFixed(2)} to ${share.max.toFixed(2)})`
      )
    }
    return shares.every(({ name, share }) => share.median > least[name])
  })

// A batcher of its own for every figure, so that none starts with what another has learned.
const makeBatcher = MetadataBatcher.layer().pipe(Layer.provide([PgStore.layer(), PgPubsub.layer()]))

const server = PgMigrations.layer().pipe(
  Layer.provideMerge(EmbeddedPostgres.layerClient()),
  Layer.provide(EmbeddedPostgres.layer())
)

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "3" } }
})

const kept = await Effect.runPromise(
  program(Number(values.rounds), Number(values.seconds)).pipe(
    Effect.provide(server),
    // That refused rows are lost at each close is what is measured.
    Effect.provideService(References.MinimumLogLevel, "Fatal")
  )
)
console.log(kept ? "kept" : "NOT kept: some poison costs too much")
process.exitCode = kept ? 0 : 1
