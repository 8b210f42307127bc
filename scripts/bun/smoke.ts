/**
 * Whether the library and the demo run on Bun: `npm run test:bun`.
 *
 * Agents report over and over, into memory and into a PostgreSQL of its own;
 * then the account has to be exact and every key the newest. The demo checks
 * the same by itself and says so in its exit code.
 */
import * as assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { join } from "node:path"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AgentId } from "../../src/AgentId.ts"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as Store from "../../src/Store.ts"

assert.ok(process.versions["bun"], "this is not Bun")

const agentIds = Array.from({ length: 200 }, () => AgentId.make(crypto.randomUUID()))
const keys = ["cpu", "memory", "disk"]
const rounds = 20

const reportAndCheck = Effect.gen(function* () {
  const batcher = yield* MetadataBatcher.MetadataBatcher
  const store = yield* Store.Store
  const start = yield* DateTime.now
  for (let round = 1; round <= rounds; round++) {
    const collectedAt = DateTime.add(start, { milliseconds: round })
    for (const agentId of agentIds) {
      yield* batcher.add(
        agentId,
        keys.map((key) => ({ key, value: `${round}`, error: "", collectedAt }))
      )
    }
    if (round % 4 === 0) yield* batcher.flush
  }
  const { offered, superseded, written, ...elsewhere } = yield* batcher.accounting
  assert.equal(offered, agentIds.length * keys.length * rounds)
  assert.equal(written + superseded, offered)
  assert.equal(
    Object.values(elsewhere).reduce((sum, count) => sum + count, 0),
    0
  )

  const held = yield* store.metadataOf(agentIds)
  assert.equal(held.length, agentIds.length)
  for (const { facts } of held) {
    assert.deepEqual(
      facts.map(({ key, value }) => [key, value]).toSorted(),
      keys.map((key) => [key, `${rounds}`]).toSorted()
    )
  }
})

const Memory = Layer.merge(Store.layerMemory, Pubsub.layerMemory)
const Postgres = Layer.merge(PgStore.layer(), PgPubsub.layer()).pipe(
  Layer.provide(PgMigrations.layer()),
  Layer.provide(EmbeddedPostgres.layerClient()),
  Layer.provide(EmbeddedPostgres.layer())
)

const into = (layer: typeof Memory | typeof Postgres) =>
  Effect.runPromise(Effect.provide(reportAndCheck, Layer.provideMerge(MetadataBatcher.layer(), layer)))

await into(Memory)
console.log("into memory: the account is exact, every key the newest")
await into(Postgres)
console.log("into PostgreSQL: the account is exact, every key the newest")

const main = join(import.meta.dirname, "../../src/app/main.ts")
const demo = ["simulate", "--agents", "50", "--duration", "3s"]
execFileSync(process.execPath, [main, ...demo], { stdio: "inherit", timeout: 60_000 })
console.log(`all of it on Bun ${process.versions["bun"]}`)
