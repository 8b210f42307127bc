/** While two versions of this library write the same rows, neither deadlocks the other, and the newest wins. */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type { MetadataBatch } from "../src/Metadata.ts"
import * as PgStore from "../src/PgStore.ts"
import { batchOf, makeAgentId } from "./conformance/StoreSuite.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const time = 1_700_000_000_000

// As the first version wrote them. It may run beside any later one, so this text never changes.
const firstUpsert = `
INSERT INTO workspace_agent_metadata AS t (workspace_agent_id, key, value, error, collected_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS u(a, k, v, e, c)
ORDER BY a, k
ON CONFLICT (workspace_agent_id, key) DO UPDATE
SET value = excluded.value, error = excluded.error, collected_at = excluded.collected_at
WHERE excluded.collected_at >= t.collected_at`

const firstUpdate = `
WITH l AS MATERIALIZED (
  SELECT t.workspace_agent_id AS a, t.key AS k, u.v, u.e, u.c
  FROM workspace_agent_metadata AS t
  JOIN (SELECT DISTINCT ON (a, k) * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
    AS r(a, k, v, e, c) ORDER BY a, k, c DESC) AS u
    ON t.workspace_agent_id = u.a AND t.key = u.k
  WHERE t.collected_at <= u.c
  ORDER BY 1, 2
  FOR NO KEY UPDATE OF t
)
UPDATE workspace_agent_metadata AS t
SET value = l.v, error = l.e, collected_at = l.c
FROM l
WHERE t.workspace_agent_id = l.a AND t.key = l.k AND t.collected_at <= l.c`

const array = (values: ReadonlyArray<unknown>, oid: number) => Result.getOrThrow(PgTypes.array(values, oid))

const writeAsFirst = (text: string) => (batch: MetadataBatch) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    Effect.asVoid(
      sql.unsafe(text, [
        array(batch.agentIds, PgTypes.OID.uuid),
        array(batch.keys, PgTypes.OID.text),
        array(batch.values, PgTypes.OID.text),
        array(batch.errors, PgTypes.OID.text),
        array(batch.collectedAt, PgTypes.OID.timestamptz)
      ])
    )
  )

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  "While versions are mixed",
  (it) => {
    it.effect("the newest of each key is held, and no statement meets a deadlock", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const upsert = yield* PgStore.make()
        const update = yield* PgStore.make({ onlyExisting: true })
        const agentIds = Array.from({ length: 20 }, makeAgentId)
        const keys = ["a", "B", "_", "Z 1", "é", "日本", "😀", "\ufffd", "k", "K"]
        const newest = new Map<string, number>()
        const makeBatch = Effect.gen(function* () {
          const at = time + (yield* Random.nextIntBetween(0, 1_000_000))
          const facts = agentIds.flatMap((agentId) =>
            keys.map((key) => {
              const name = `${agentId} ${key}`
              newest.set(name, Math.max(newest.get(name) ?? 0, at))
              return [agentId, key, `${at}`, at] as const
            })
          )
          return batchOf(yield* Random.shuffle(facts))
        })
        const writers: ReadonlyArray<
          (batch: MetadataBatch) => Effect.Effect<unknown, unknown, PgClient.PgClient>
        > = [
          upsert.batchUpdateMetadata,
          update.batchUpdateMetadata,
          writeAsFirst(firstUpsert),
          writeAsFirst(firstUpdate)
        ]
        yield* upsert.batchUpdateMetadata(yield* makeBatch)
        yield* Effect.forEach(
          Array.from({ length: 160 }, (_, n) => n),
          (n) => Effect.flatMap(makeBatch, (batch) => writers[n % writers.length]?.(batch) ?? Effect.void),
          { concurrency: 8, discard: true }
        )
        const held = new Map(
          (yield* upsert.metadataOf(agentIds)).flatMap(({ agentId, facts }) =>
            facts.map((fact) => [`${agentId} ${fact.key}`, Number(fact.value)])
          )
        )
        assert.deepStrictEqual(held, newest)
        yield* sql`SELECT pg_stat_force_next_flush()`.pipe(Effect.ignore)
        const [row] = yield* sql<{ readonly deadlocks: bigint }>`
        SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`
        assert.strictEqual(row?.deadlocks, 0n)
      }).pipe(Random.withSeed("versions"))
    )
  }
)
