/**
 * Measures what the scaling page computes from, and writes it to
 * `scripts/bench/results/scaling.json`:
 *
 *   node scripts/bench/scaling/limits.ts [--seconds <n>] [--rounds <n>]
 *
 * - what writing costs, alone and announced, in reports and in batches;
 * - 1 to 4 replicas on one database;
 * - 0 to 20,000 watchers in one process.
 *
 * All in one run, each round in another order: only ratios are worth anything.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EmbeddedPostgres from "../../../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../../../src/PgMigrations.ts"
import { measureReplicas, type Replicas } from "./replicas.ts"
import { measureWatchers, type Watchers } from "./watchers.ts"
import { measureWrites, type Writes } from "./writes.ts"

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "3" }, rounds: { type: "string", default: "3" } }
})
const seconds = Number(values.seconds)
const rounds = Number(values.rounds)

export interface Results extends Writes {
  readonly when: string
  readonly replicas: ReadonlyArray<Replicas>
  readonly watchers: ReadonlyArray<Watchers>
}

const main = Effect.gen(function* () {
  const writes = yield* measureWrites(seconds, rounds)
  const replicas = yield* measureReplicas(2 * seconds, rounds)
  const watchers = yield* measureWatchers(4 * seconds)
  return {
    when: new Date().toISOString().slice(0, 10),
    ...writes,
    replicas,
    watchers
  } satisfies Results
})

const layer = PgMigrations.layer().pipe(
  Layer.provideMerge(EmbeddedPostgres.layerClient({ maxConnections: 20 })),
  Layer.provideMerge(EmbeddedPostgres.layer())
)

const results = await Effect.runPromise(Effect.provide(Effect.scoped(main), layer))
writeFileSync(join(import.meta.dirname, "../results/scaling.json"), `${JSON.stringify(results, null, 2)}\n`)
console.log("measured; for the tables: node scripts/bench/scaling/compute.ts --write")
process.exit(0)
