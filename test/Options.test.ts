import { assert, describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Batcher from "../src/Batcher.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import * as Pubsub from "../src/Pubsub.ts"
import * as StatsBatcher from "../src/StatsBatcher.ts"
import * as Store from "../src/Store.ts"
import { agentIdOf, fact, rowsOf, start } from "./support/Fakes.ts"

const memory = Layer.merge(Store.layerMemory, Pubsub.layerMemory)

/** Options as JavaScript may pass them. */
type Loose = { readonly [Option in keyof MetadataBatcher.Options]: unknown }

const failureOf = (options: Loose) =>
  MetadataBatcher.layer(options as MetadataBatcher.Options).pipe(
    Layer.provide(memory),
    Layer.build,
    Effect.scoped,
    Effect.flip
  )

const counts: ReadonlyArray<unknown> = [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, "500", {}]
const durations: ReadonlyArray<unknown> = [
  -1,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  "soon",
  "5 parsecs",
  "-5 seconds",
  "25 days",
  Duration.infinity,
  true
]

const nonsense: ReadonlyArray<
  readonly [option: keyof MetadataBatcher.Options, values: ReadonlyArray<unknown>]
> = [
  ["maxBatchSize", counts],
  ["interval", [0, 0.5, "0 seconds", {}, ...durations]],
  ["capacity", [...counts, 499]],
  ["maxPending", [...counts, 499]],
  ["maxPendingBytes", counts],
  ["maxBatchBytes", counts],
  ["shutdownTimeout", durations],
  ["writeTimeout", durations],
  ["writeConcurrency", counts],
  ["onWriteFailure", ["", "retry", 1, true]],
  ["unchanged", [0, 0.5, {}, ...durations]],
  [
    "maxAhead",
    durations.filter((value) => value !== Number.POSITIVE_INFINITY && value !== Duration.infinity)
  ],
  ["name", ["", 5, {}]],
  ["metricsPrefix", ["", "1agent", "agent-api", "agent api", "ägent", 5, {}]]
]

describe("Options", () => {
  it.effect.each(nonsense.flatMap(([option, values]) => values.map((value) => [option, value] as const)))(
    "%s %o fails when the layer is built",
    ([option, value]) =>
      Effect.gen(function* () {
        const error = yield* failureOf({ [option]: value })
        assert.instanceOf(error, Batcher.InvalidOptionError)
        assert.strictEqual(error.option, option)
        assert.include(error.message, `option "${option}" must be ${error.expected}, got ${error.actual}`)
        if (typeof value !== "object") assert.include(error.message, String(value))
      })
  )

  it.effect("capacity and maxPending hold at least a batch", () =>
    Effect.gen(function* () {
      for (const option of ["capacity", "maxPending"] as const) {
        assert.strictEqual((yield* failureOf({ maxBatchSize: 10, [option]: 9 })).option, option)
        yield* start({ maxBatchSize: 10, [option]: 10 })
      }
      // The defaults grow with the batch.
      yield* start({ maxBatchSize: 60_000 })
    })
  )

  it.effect("the smallest and largest of each are taken", () =>
    Effect.gen(function* () {
      yield* start({
        maxBatchSize: 1,
        interval: 1,
        capacity: 1,
        maxPending: 1,
        maxPendingBytes: 1,
        maxBatchBytes: 1,
        shutdownTimeout: 0,
        writeTimeout: 0,
        unchanged: 1,
        maxAhead: 0,
        writeConcurrency: 1,
        onWriteFailure: "discard",
        metricsPrefix: "_"
      })
      yield* start({ interval: "24 days", shutdownTimeout: "24 days", writeTimeout: "24 days" })
    })
  )

  it.effect("undefined is the default", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start({
        maxBatchSize: undefined,
        interval: undefined,
        capacity: undefined,
        metricsPrefix: undefined
      })
      const report = Array.from({ length: 2501 }, (_, key) => ({
        key: `${key}`,
        value: "",
        error: "",
        collectedAt: DateTime.makeUnsafe(0)
      }))
      assert.strictEqual(batcher.addUnsafe(agentIdOf(0), report), 2501)
      yield* batcher.flush
      assert.deepStrictEqual(
        writes.calls.map(({ keys }) => keys.length),
        [500, 500, 500, 500, 500, 1]
      )
    })
  )

  it.effect("a definition that does not say what the content of a record is cannot have `unchanged`", () =>
    Effect.gen(function* () {
      const build = StatsBatcher.layer({ unchanged: "1 minute" }).pipe(Layer.provide(memory), Layer.build)
      assert.deepInclude(yield* Effect.flip(Effect.scoped(build)), { option: "unchanged" })
    })
  )

  it.effect("name is in spans, logs and nothing else", () =>
    Effect.gen(function* () {
      const { batcher, logs } = yield* start({ name: "Tenant A" })
      batcher.addUnsafe(agentIdOf(0), [undefined as never])
      assert.strictEqual((yield* logs.next("Warn")).annotations["batcher"], "Tenant A")
    })
  )

  it.effect("channel is where changed agents are announced", () =>
    Effect.gen(function* () {
      const { batcher, publishes } = yield* start({ channel: "tenant_a" })
      batcher.addUnsafe(agentIdOf(0), [fact("cpu", "")])
      yield* batcher.flush
      assert.deepStrictEqual(
        publishes.calls.map(({ channel }) => channel),
        ["tenant_a"]
      )
    })
  )

  it.effect("of statistics fail the same way", () =>
    Effect.gen(function* () {
      const build = StatsBatcher.layer({ maxBatchSize: 0 }).pipe(Layer.provide(memory), Layer.build)
      assert.deepStrictEqual(
        yield* Effect.flip(Effect.scoped(build)),
        new Batcher.InvalidOptionError({
          option: "maxBatchSize",
          expected: "a whole number of at least 1",
          actual: "0"
        })
      )
    })
  )
})

describe("MetadataBatcher.layerConfig", () => {
  const layerConfig = MetadataBatcher.layerConfig({
    maxBatchSize: Config.Int("BATCH_SIZE"),
    interval: Config.withDefault(Config.Duration("BATCH_INTERVAL"), Duration.seconds(5)),
    onWriteFailure: Config.succeed("discard")
  }).pipe(Layer.provideMerge(memory))

  const configure = (env: Record<string, string>) =>
    Layer.provide(layerConfig, ConfigProvider.layer(ConfigProvider.fromEnv({ env })))

  it.effect("reads its options from the ConfigProvider", () =>
    Effect.gen(function* () {
      const batcher = yield* MetadataBatcher.MetadataBatcher
      const facts = ["a", "b", "c"].map((key) => ({
        key,
        value: "",
        error: "",
        collectedAt: DateTime.makeUnsafe(0)
      }))
      // The capacity is five times the configured 7: whoever finds the queue full folds it.
      for (let agent = 0; agent < 11; agent++) batcher.addUnsafe(agentIdOf(agent), facts)
      assert.deepInclude(yield* batcher.accounting, { queued: 33, pending: 0, dropped: 0 })
      batcher.addUnsafe(agentIdOf(11), facts)
      assert.deepInclude(yield* batcher.accounting, { queued: 3, pending: 33, dropped: 0 })
    }).pipe(Effect.provide(configure({ BATCH_SIZE: "7" })))
  )

  it.effect("fails on what is missing, unreadable or no valid option", () =>
    Effect.gen(function* () {
      const failureOf = (env: Record<string, string>) =>
        Effect.flip(Effect.scoped(Layer.build(configure(env))))
      assert.strictEqual((yield* failureOf({}))._tag, "ConfigError")
      assert.strictEqual((yield* failureOf({ BATCH_SIZE: "many" }))._tag, "ConfigError")
      const error = yield* failureOf({ BATCH_SIZE: "0" })
      assert.strictEqual(error._tag, "InvalidOptionError")
      assert.include(error.message, '"maxBatchSize"')
    })
  )
})

describe("MetadataBatcher.addColumns", () => {
  const at = (milliseconds: number) => DateTime.makeUnsafe(milliseconds)

  it.effect("adds the facts of four columns of equal length", () =>
    Effect.gen(function* () {
      const { batcher, writes } = yield* start()
      const agentId = agentIdOf(0)
      yield* batcher.addColumns(agentId, { keys: [], values: [], errors: [], collectedAt: [] })
      yield* batcher.addColumns(agentId, {
        keys: ["cpu", "disk"],
        values: ["7 %", ""],
        errors: ["", "gone"],
        collectedAt: [at(1), at(2)]
      })
      yield* batcher.flush
      assert.deepStrictEqual(writes.calls.map(rowsOf), [
        [
          [agentId, "cpu", "7 %", 1],
          [agentId, "disk", "", 2]
        ]
      ])
      assert.deepStrictEqual(writes.calls[0]?.errors, ["", "gone"])
    })
  )

  it.effect.each([
    [1, 2, 2, 2],
    [2, 1, 2, 2],
    [2, 2, 0, 2],
    [2, 2, 2, 3],
    [0, 1, 2, 3]
  ] as const)("refuses lengths of %i, %i, %i and %i", ([keys, values, errors, collectedAt]) =>
    Effect.gen(function* () {
      const { batcher } = yield* start()
      const error = yield* Effect.flip(
        batcher.addColumns(agentIdOf(0), {
          keys: Array(keys).fill("key"),
          values: Array(values).fill(""),
          errors: Array(errors).fill(""),
          collectedAt: Array(collectedAt).fill(at(0))
        })
      )
      assert.deepStrictEqual(
        error,
        new MetadataBatcher.InvalidAddError({ keys, values, errors, collectedAt })
      )
      assert.include(
        error.message,
        `keys ${keys}, values ${values}, errors ${errors}, collectedAt ${collectedAt}`
      )
      assert.deepInclude(yield* batcher.accounting, { offered: 0, queued: 0, dropped: 0 })
    })
  )
})
