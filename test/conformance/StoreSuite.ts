/**
 * What every `Store` must do, run against each implementation.
 *
 * The tests share one store and keep apart by agent ids and row ids of their
 * own.
 */
import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { AgentId } from "../../src/AgentId.ts"
import type { AgentStatsRow } from "../../src/AgentStats.ts"
import type { MetadataBatch } from "../../src/Metadata.ts"
import type * as Store from "../../src/Store.ts"

export class StoreUnderTest extends Context.Service<StoreUnderTest, Store.MemoryStore>()(
  "test/StoreUnderTest"
) {}

export const makeAgentId = (): AgentId => Schema.decodeSync(AgentId)(crypto.randomUUID())

type Fact = readonly [agentId: AgentId, key: string, value: string, collectedAt: number, error?: string]

export const batchOf = (facts: ReadonlyArray<Fact>): MetadataBatch => ({
  agentIds: facts.map(([agentId]) => agentId),
  keys: facts.map(([, key]) => key),
  values: facts.map(([, , value]) => value),
  errors: facts.map(([, , , , error = ""]) => error),
  collectedAt: facts.map(([, , , collectedAt]) => collectedAt)
})

/** What the store holds for one agent: value, error and time by key. */
export const factsOf = (store: Store.Store["Service"], agentId: AgentId) =>
  Effect.map(store.metadataOf([agentId]), (agents) =>
    Object.fromEntries(
      agents.flatMap(({ facts }) =>
        facts.map((fact) => [fact.key, [fact.value, fact.error, fact.collectedAt.epochMilliseconds]] as const)
      )
    )
  )

export const makeStats = (stats?: Partial<AgentStatsRow>): AgentStatsRow => ({
  id: crypto.randomUUID(),
  createdAt: DateTime.makeUnsafe(1_700_000_000_123),
  agentId: makeAgentId(),
  userId: crypto.randomUUID(),
  templateId: crypto.randomUUID(),
  workspaceId: crypto.randomUUID(),
  connectionsByProto: { ssh: 1 },
  connectionCount: 1n,
  rxPackets: 2n,
  rxBytes: 3n,
  txPackets: 4n,
  txBytes: 5n,
  sessionCountVSCode: 6n,
  sessionCountJetBrains: 7n,
  sessionCountReconnectingPTY: 8n,
  sessionCountSSH: 9n,
  connectionMedianLatencyMs: 1.5,
  ...stats
})

const rowsRefused = (write: Effect.Effect<Store.WriteResult, Store.StoreError>) =>
  Effect.map(write, ({ refused }) => refused.map(({ position }) => position))

const time = 1_700_000_000_000

const badFacts: ReadonlyArray<
  readonly [what: string, bad: Partial<Record<"key" | "value" | "error", string>>]
> = [
  ["a NUL in the key", { key: "a\0b" }],
  ["a NUL in the value", { value: "\0" }],
  ["a NUL in the error", { error: "a\0" }],
  ["a key of 128 characters", { key: "k".repeat(128) }],
  ["a key of 128 characters outside the basic plane", { key: "😀".repeat(128) }],
  ["a value of 65,536 characters", { value: "v".repeat(65_536) }],
  ["an error of 65,536 characters", { error: "e".repeat(65_536) }]
]

const badTimes = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  8_640_000_000_000_001,
  -210_866_803_200_001
]

const badStats: ReadonlyArray<readonly [what: string, bad: Partial<AgentStatsRow>]> = [
  ["a count above the range of bigint", { rxBytes: 2n ** 63n }],
  ["a count below the range of bigint", { txBytes: -(2n ** 63n) - 1n }],
  ["a NUL in a protocol", { connectionsByProto: { "s\0h": 1 } }],
  ["half a surrogate pair in a protocol", { connectionsByProto: { "\ud800": 1 } }],
  ["a count of connections that is no number", { connectionsByProto: { ssh: Number.NaN } }],
  ["a latency that is no number", { connectionMedianLatencyMs: null as never }],
  ["a user id that is no UUID", { userId: "root" }]
]

export const storeSuite = <E>(name: string, storeLayer: Layer.Layer<StoreUnderTest, E>): void =>
  layer(storeLayer, { excludeTestServices: true, timeout: "30 seconds" })(`Store: ${name}`, (it) => {
    it.effect("returns what was written, agent by agent", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const [a, b] = [makeAgentId(), makeAgentId()]
        yield* store.batchUpdateMetadata(
          batchOf([
            [b, "disk", "", time + 1, "no such device"],
            [a, "cpu", "7 %", time],
            [a, "disk", "80 %", time + 2]
          ])
        )
        assert.deepStrictEqual(yield* factsOf(store, a), {
          cpu: ["7 %", "", time],
          disk: ["80 %", "", time + 2]
        })
        assert.deepStrictEqual(yield* factsOf(store, b), { disk: ["", "no such device", time + 1] })
        const agents = yield* store.metadataOf([a, b, a])
        assert.deepStrictEqual(agents.map(({ agentId }) => agentId).sort(), [a, b].sort())
      })
    )

    it.effect("leaves out agents it knows nothing of", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        assert.deepStrictEqual(yield* store.metadataOf([makeAgentId()]), [])
        assert.deepStrictEqual(yield* store.metadataOf([]), [])
      })
    )

    it.effect("replaces a fact by a newer one and by one of the same time, never by an older one", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const write = (value: string, at: number) =>
          Effect.andThen(
            store.batchUpdateMetadata(batchOf([[agentId, "cpu", value, at]])),
            Effect.map(factsOf(store, agentId), (facts) => facts["cpu"])
          )
        assert.deepStrictEqual(yield* write("second", time + 2), ["second", "", time + 2])
        assert.deepStrictEqual(yield* write("first", time + 1), ["second", "", time + 2])
        assert.deepStrictEqual(yield* write("second again", time + 2), ["second again", "", time + 2])
        assert.deepStrictEqual(yield* write("third", time + 3), ["third", "", time + 3])
      })
    )

    it.effect("says which rows changed nothing, because a newer fact is held", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const batch = (at: ReadonlyArray<number>) =>
          batchOf(at.map((millis, key): Fact => [agentId, `key ${key}`, "", time + millis]))
        const results = yield* Effect.forEach(
          [batch([1, 1, 1]), batch([1, 2, 0]), batch([0, 0, 0, 0]), batch([9, 9, 9, 9])],
          store.batchUpdateMetadata
        )
        assert.deepStrictEqual(
          results.map(({ changed, superseded }) => [changed, superseded]),
          [
            [3, []],
            [2, [2]],
            [1, [0, 1, 2]],
            [4, []]
          ]
        )
        for (const { missing, refused } of results) assert.deepStrictEqual([missing, refused], [[], []])
      })
    )

    it.effect("returns the facts under the keys asked for", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const [a, b] = [makeAgentId(), makeAgentId()]
        yield* store.batchUpdateMetadata(
          batchOf([
            [a, "cpu", "1", time],
            [a, "disk", "2", time],
            [b, "disk", "3", time]
          ])
        )
        const found = (keys: ReadonlyArray<string>) =>
          Effect.map(store.metadataOf([a, b], { keys }), (agents) =>
            Object.fromEntries(
              agents.map(({ agentId, facts }) => [agentId, facts.map(({ value }) => value).sort()])
            )
          )
        assert.deepStrictEqual(yield* found(["cpu", "memory"]), { [a]: ["1"] })
        assert.deepStrictEqual(yield* found(["disk", "cpu"]), { [a]: ["1", "2"], [b]: ["3"] })
        assert.deepStrictEqual(yield* found([]), {})
      })
    )

    it.effect("lists its agents by id, page by page, and deletes them", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        // Far from the ids of other tests, which share the store.
        const ids = [3, 1, 2, 0].map((n) =>
          Schema.decodeSync(AgentId)(`ffffffff-ffff-4fff-8fff-fffffffffff${n}`)
        )
        yield* store.batchUpdateMetadata(
          batchOf(
            ids.flatMap((agentId, n) => [
              [agentId, "cpu", "", time + n] as const,
              [agentId, "disk", "", time + 10 * n, n < 2 ? "no such device" : ""] as const
            ])
          )
        )
        const page = (after: AgentId | undefined, limit: number) =>
          Effect.map(store.agents({ after, limit }), (agents) =>
            agents.map(({ lastCollectedAt, ...agent }) => ({
              ...agent,
              last: lastCollectedAt.epochMilliseconds - time
            }))
          )
        const before = Schema.decodeSync(AgentId)("ffffffff-ffff-4fff-8fff-000000000000")
        const [three, one, two, zero] = ids
        assert.deepStrictEqual(yield* page(before, 2), [
          { agentId: zero, facts: 2, errors: 0, last: 30 },
          { agentId: one, facts: 2, errors: 1, last: 10 }
        ])
        assert.deepStrictEqual(yield* page(one, 3), [
          { agentId: two, facts: 2, errors: 0, last: 20 },
          { agentId: three, facts: 2, errors: 1, last: 0 }
        ])
        assert.deepStrictEqual(yield* page(three, 1), [])
        assert.strictEqual((yield* store.agents({ limit: 3 })).length, 3)
        assert.strictEqual(yield* store.deleteAgents(ids.slice(0, 3)), 6)
        assert.strictEqual(yield* store.deleteAgents(ids), 2)
        assert.strictEqual(yield* store.deleteAgents([]), 0)
        assert.deepStrictEqual(yield* page(before, 9), [])
      })
    )

    it.effect("tells times apart by fractions of a millisecond", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        yield* store.batchUpdateMetadata(batchOf([[agentId, "cpu", "newer", time + 0.25]]))
        yield* store.batchUpdateMetadata(batchOf([[agentId, "cpu", "older", time + 0.125]]))
        assert.deepStrictEqual(yield* factsOf(store, agentId), { cpu: ["newer", "", time] })
      })
    )

    it.effect("may be given the same batch again", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const batch = batchOf([
          [agentId, "cpu", "7 %", time],
          [agentId, "disk", "80 %", time]
        ])
        yield* store.batchUpdateMetadata(batch)
        const first = yield* factsOf(store, agentId)
        yield* store.batchUpdateMetadata(batch)
        assert.deepStrictEqual(yield* factsOf(store, agentId), first)
      })
    )

    it.effect("decides row by row in a batch of older and newer facts", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        yield* store.batchUpdateMetadata(
          batchOf([
            [agentId, "a", "held", time],
            [agentId, "b", "held", time],
            [agentId, "c", "held", time]
          ])
        )
        yield* store.batchUpdateMetadata(
          batchOf([
            [agentId, "a", "older", time - 1],
            [agentId, "b", "newer", time + 1],
            [agentId, "d", "new", time - 1]
          ])
        )
        assert.deepStrictEqual(yield* factsOf(store, agentId), {
          a: ["held", "", time],
          b: ["newer", "", time + 1],
          c: ["held", "", time],
          d: ["new", "", time - 1]
        })
      })
    )

    it.effect.each(badFacts)("refuses %s, names its rows, and writes the others", ([, bad]) =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const good = (key: string): Fact => [agentId, key, "", time]
        const { key, value, error } = { key: "bad", value: "", error: "", ...bad }
        const write = store.batchUpdateMetadata(
          batchOf([
            good("a"),
            [agentId, key, value, time, error],
            good("b"),
            [agentId, `${key}2`, value, time, `${error}\0`]
          ])
        )
        const result = yield* write
        assert.deepStrictEqual(
          result.refused.map(({ position }) => position),
          [1, 3]
        )
        assert.deepStrictEqual([result.changed, result.superseded, result.missing], [2, [], []])
        for (const { why } of result.refused) assert.match(why, /^the (key|value|error) (contains|is longer)/)
        assert.deepStrictEqual(Object.keys(yield* factsOf(store, agentId)).sort(), ["a", "b"])
      })
    )

    it.effect("refuses times that are none or out of range, and ids that are no UUID", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const facts = badTimes.map((at, row): Fact => [agentId, `key ${row}`, "", at])
        const rows = facts.map((_, row) => row)
        assert.deepStrictEqual(yield* rowsRefused(store.batchUpdateMetadata(batchOf(facts))), rows)
        const malformed = { ...batchOf([[agentId, "cpu", "", time]]), agentIds: ["agent-7" as AgentId] }
        assert.deepStrictEqual(yield* rowsRefused(store.batchUpdateMetadata(malformed)), [0])
      })
    )

    it.effect("takes the longest texts and the first and last times there are", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const [key, text] = ["😀".repeat(127), "😀".repeat(65_535)]
        yield* store.batchUpdateMetadata(
          batchOf([
            [agentId, key, text, 8_640_000_000_000_000, text],
            [agentId, "first", "", -210_866_803_200_000]
          ])
        )
        assert.deepStrictEqual(yield* factsOf(store, agentId), {
          [key]: [text, text, 8_640_000_000_000_000],
          first: ["", "", -210_866_803_200_000]
        })
      })
    )

    it.effect("keeps every text as it is", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentId = makeAgentId()
        const texts = [
          "",
          "NULL",
          "{}",
          '{"a,b"}',
          "'; --",
          "\\",
          "\n\t\r",
          "é",
          "e\u0301",
          "日本語",
          "👩‍👩‍👧",
          "K",
          "k",
          " "
        ]
        yield* store.batchUpdateMetadata(batchOf(texts.map((text) => [agentId, text, text, time, text])))
        assert.deepStrictEqual(
          yield* factsOf(store, agentId),
          Object.fromEntries(texts.map((text) => [text, [text, text, time]]))
        )
      })
    )

    it.effect("takes 5,000 facts at once", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentIds = Array.from({ length: 500 }, makeAgentId)
        const facts = agentIds.flatMap((agentId) =>
          Array.from(
            { length: 10 },
            (_, key): Fact => [agentId, `key ${key}`, `${agentId} ${key}`, time + key]
          )
        )
        yield* store.batchUpdateMetadata(batchOf(facts))
        const agents = yield* store.metadataOf(agentIds)
        const held = agents.flatMap(({ agentId, facts }) =>
          facts.map((fact) => [agentId, fact.key, fact.value, fact.collectedAt.epochMilliseconds])
        )
        assert.deepStrictEqual(new Set(held.map(String)), new Set(facts.map(String)))
        assert.strictEqual(held.length, 5_000)
      })
    )

    it.effect("keeps the newest of each key when many write the same keys at once", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const agentIds = Array.from({ length: 5 }, makeAgentId)
        const newest = new Map<string, number>()
        const batches = Array.from({ length: 80 }, () => {
          const facts = agentIds.flatMap((agentId) =>
            Array.from({ length: 10 }, (_, key): Fact => {
              const at = time + Math.floor(Math.random() * 1_000_000)
              const name = `${agentId} ${key}`
              newest.set(name, Math.max(newest.get(name) ?? 0, at))
              return [agentId, `${key}`, `${at}`, at]
            })
          )
          return batchOf(facts.sort(() => Math.random() - 0.5))
        })
        yield* Effect.forEach(batches, store.batchUpdateMetadata, { concurrency: 8, discard: true })
        const held = new Map(
          (yield* store.metadataOf(agentIds)).flatMap(({ agentId, facts }) =>
            facts.map((fact) => [`${agentId} ${fact.key}`, Number(fact.value)])
          )
        )
        assert.deepStrictEqual(held, newest)
      })
    )

    const statsHeld = (ids: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const { stats } = yield* StoreUnderTest
        return (yield* stats)
          .filter(({ id }) => ids.includes(id))
          .sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id))
      })

    it.effect("appends reports as they are, each with its own map and counts beyond 2^53", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const rows = [
          makeStats({ connectionsByProto: { ssh: 2, vscode: 1 }, rxBytes: 2n ** 53n + 1n }),
          makeStats({ connectionsByProto: {}, txBytes: 2n ** 63n - 1n, connectionMedianLatencyMs: -1 }),
          makeStats({ connectionsByProto: { "日本 \"'": 0.5 }, rxPackets: -(2n ** 63n) })
        ]
        yield* store.batchInsertStats(rows)
        assert.deepStrictEqual(yield* statsHeld(rows.map(({ id }) => id)), rows)
      })
    )

    it.effect("leaves a report it holds as it is, and appends the others of the batch", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const [first, second] = [makeStats(), makeStats()]
        yield* store.batchInsertStats([first])
        const result = yield* store.batchInsertStats([{ ...first, rxBytes: 0n }, second])
        assert.deepStrictEqual(result, { changed: 2, superseded: [], missing: [], refused: [] })
        assert.deepStrictEqual(yield* statsHeld([first.id, second.id]), [first, second])
      })
    )

    it.effect.each(badStats)("refuses a report with %s, names its row and appends the others", ([, bad]) =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        const rows = [makeStats(), makeStats(bad), makeStats()]
        assert.deepStrictEqual(yield* rowsRefused(store.batchInsertStats(rows)), [1])
        assert.deepStrictEqual(yield* statsHeld(rows.map(({ id }) => id)), [rows[0], rows[2]])
      })
    )

    it.effect("takes empty batches", () =>
      Effect.gen(function* () {
        const { store } = yield* StoreUnderTest
        yield* store.batchUpdateMetadata(batchOf([]))
        yield* store.batchInsertStats([])
      })
    )
  })
