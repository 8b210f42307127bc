/** Two tenants live in one database, under whatever names, and neither sees the other. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as PgMigrations from "../src/PgMigrations.ts"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, factsOf, makeAgentId, makeStats } from "./conformance/StoreSuite.ts"
import { captureLogs } from "./support/Fakes.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const time = 1_700_000_000_000

const tenants: ReadonlyArray<readonly [what: string, options: PgMigrations.Options]> = [
  ["a schema of its own", { schema: "acme" }],
  ["a schema whose name needs quoting", { schema: `we"ird.$salvage$ 'schema'` }],
  ["a schema, and tables of odd names", { schema: "odd", metadataTable: `a.b"$c$`, statsTable: "select" }],
  [
    "other names in the public schema",
    { metadataTable: "public.globex_facts", statsTable: "globex_stats", migrationsTable: "globex_migrations" }
  ]
]

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("A tenant with", (it) => {
  it.effect.each(tenants)(
    "%s has tables of its own, and refused rows are named there as well",
    ([, options]) =>
      Effect.gen(function* () {
        const applied = yield* PgMigrations.run(options)
        assert.deepStrictEqual(
          applied.map(([id]) => id),
          [1, 2, 3]
        )
        assert.deepStrictEqual(yield* PgMigrations.run(options), [])

        const [lines, logging] = captureLogs()
        const store = yield* Effect.provide(PgStore.make(options), logging)
        assert.deepStrictEqual(lines, [])
        const other = yield* PgStore.make()
        const agentId = makeAgentId()
        yield* store.batchUpdateMetadata(batchOf([[agentId, "cpu", "ours", time]]))
        yield* other.batchUpdateMetadata(batchOf([[agentId, "cpu", "theirs", time + 1]]))
        assert.deepStrictEqual(yield* factsOf(store, agentId), { cpu: ["ours", "", time] })
        assert.strictEqual((yield* store.batchInsertStats([makeStats()])).changed, 1)

        const sql = yield* PgClient.PgClient
        const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`
        const table =
          options.schema === undefined
            ? "globex_facts"
            : `${quoted(options.schema)}.${quoted(options.metadataTable ?? "workspace_agent_metadata")}`
        yield* sql.unsafe(`ALTER TABLE ${table} ADD CONSTRAINT "not $bad$" CHECK (value <> 'bad')`)
        const result = yield* store.batchUpdateMetadata(
          batchOf([
            [agentId, "cpu", "good", time + 2],
            [agentId, "disk", "bad", time + 2]
          ])
        )
        assert.deepStrictEqual([result.changed, result.refused.map(({ position }) => position)], [1, [1]])
        assert.strictEqual(yield* store.deleteAgents([agentId]), 1)
        assert.deepStrictEqual(yield* factsOf(other, agentId), { cpu: ["theirs", "", time + 1] })
      })
  )

  it.effect("migrations that many processes run at the same time gets them once", () =>
    Effect.gen(function* () {
      const runs = yield* Effect.all(
        ["together", "apart"].flatMap((schema) =>
          Array.from({ length: 5 }, () => PgMigrations.run({ schema }))
        ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(runs.map((applied) => applied.length).sort(), [0, 0, 0, 0, 0, 0, 0, 0, 3, 3])
    })
  )
})
