/**
 * A `Store` and a `Pubsub` that do what the test tells them, and a
 * `MetadataBatcher` between them whose metrics and logs are the test's own.
 *
 * A test waits for events ("the next write began") or for a state ("nothing is
 * queued"); it never counts turns of the event loop.
 */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import type { AgentStatsRow } from "../../src/AgentStats.ts"
import type * as Batcher from "../../src/Batcher.ts"
import * as BatcherMetrics from "../../src/BatcherMetrics.ts"
import type { Metadata, MetadataBatch } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as StatsBatcher from "../../src/StatsBatcher.ts"
import * as Store from "../../src/Store.ts"

/** An operation that records its calls and answers each as told. */
export interface Script<Call, E> {
  readonly run: (call: Call) => Effect.Effect<unknown, E>
  /** Every call so far, and those of them that succeeded. */
  readonly calls: ReadonlyArray<Call>
  readonly succeeded: ReadonlyArray<Call>
  /** When each call came, in milliseconds since the epoch. */
  readonly times: ReadonlyArray<number>
  /** The next call that nobody has asked for yet, once it has come. */
  readonly began: Effect.Effect<Call>
  /** The same, once it has been answered. */
  readonly ended: Effect.Effect<Call>
  /** How the next calls are answered, one each. */
  readonly answer: (...answers: ReadonlyArray<Effect.Effect<unknown, E>>) => void
  /** How every call is answered that has no answer of its own. */
  readonly answerAll: (answer: (call: Call) => Effect.Effect<unknown, E>) => void
  /** Answers the next call as said, or with success, once the latch is opened. */
  readonly hold: (answer?: Effect.Effect<unknown, E>) => Latch.Latch
}

const makeScript = <Call, E>(): Effect.Effect<Script<Call, E>> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const [began, ended] = [yield* Queue.unbounded<Call>(), yield* Queue.unbounded<Call>()]
    const answers: Array<Effect.Effect<unknown, E>> = []
    let answerAll = (_: Call): Effect.Effect<unknown, E> => Effect.void
    const calls: Array<Call> = []
    const succeeded: Array<Call> = []
    const times: Array<number> = []
    return {
      run: (call) =>
        Effect.suspend(() => {
          calls.push(call)
          times.push(clock.currentTimeMillisUnsafe())
          Queue.offerUnsafe(began, call)
          return answers.shift() ?? answerAll(call)
        }).pipe(
          Effect.tap(() =>
            Effect.sync(() => {
              succeeded.push(call)
            })
          ),
          Effect.ensuring(Effect.sync(() => Queue.offerUnsafe(ended, call)))
        ),
      calls,
      succeeded,
      times,
      began: Queue.take(began),
      ended: Queue.take(ended),
      answer: (...more) => {
        answers.push(...more)
      },
      answerAll: (answer) => {
        answers.length = 0
        answerAll = answer
      },
      hold: (answer = Effect.void) => {
        const latch = Latch.makeUnsafe()
        answers.push(Effect.andThen(latch.await, answer))
        return latch
      }
    }
  })

export interface Publication {
  readonly channel: string
  readonly payloads: ReadonlyArray<string>
}

export interface LogLine {
  readonly level: LogLevel.LogLevel
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
  readonly at: number
}

/** Keeps everything logged, from debug upwards. */
export const captureLogs = (
  onLine?: (line: LogLine) => void
): readonly [lines: ReadonlyArray<LogLine>, layer: Layer.Layer<never>] => {
  const lines: Array<LogLine> = []
  const logger = Logger.make<unknown, void>(({ date, fiber, logLevel, message }) => {
    const line = {
      level: logLevel,
      message: (Array.isArray(message) ? message : [message]).map(String).join(" "),
      annotations: fiber.getRef(References.CurrentLogAnnotations),
      at: date.getTime()
    }
    lines.push(line)
    onLine?.(line)
  })
  return [lines, Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "Debug"))]
}

/** Runs a batcher in a scope of its own, with metrics and logs of its own. */
export const run = Effect.fnUntraced(function* <
  B extends { readonly accounting: Effect.Effect<Batcher.Accounting> },
  E
>(kind: string, make: Effect.Effect<B, E, Scope.Scope>) {
  const unseen = yield* Queue.unbounded<LogLine>()
  const [lines, logging] = captureLogs((line) => Queue.offerUnsafe(unseen, line))
  const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()

  // However the test left it, its time passes.
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) =>
    Effect.gen(function* () {
      const closed = yield* Effect.forkChild(Scope.close(scope, exit), { startImmediately: true })
      yield* Effect.race(Fiber.join(closed), Effect.andThen(TestClock.adjust("1 hour"), Effect.never))
    })
  )
  const batcher = yield* make.pipe(
    Effect.provideService(Metric.MetricRegistry, registry),
    Effect.provide(logging),
    Scope.provide(scope)
  )

  return {
    batcher,
    logs: {
      lines,
      /** The next line of this level that nobody has asked for yet, once it is there. */
      next: (level: LogLevel.LogLevel) =>
        Effect.repeat(Queue.take(unseen), { until: (line) => line.level === level })
    },
    metrics: BatcherMetrics.make({ prefix: "agentapi", kind }),
    /** The value of a metric in the registry of this batcher. */
    valueOf: <Input, State>(metric: Metric.Metric<Input, State>) =>
      Effect.provideService(Metric.value(metric), Metric.MetricRegistry, registry),
    /** What Prometheus would be told. */
    scrape: Effect.provideService(PrometheusMetrics.format(), Metric.MetricRegistry, registry),
    /** Every metric of this batcher. */
    snapshot: Effect.provideService(Metric.snapshot, Metric.MetricRegistry, registry),
    /** Waits until the account is as said; checks on the way that it adds up. */
    until: (condition: (account: Batcher.Accounting) => boolean) =>
      Effect.yieldNow.pipe(
        Effect.andThen(batcher.accounting),
        Effect.tap(assertAddsUp),
        Effect.repeat({ until: condition })
      ),
    close: Scope.close(scope, Exit.void)
  }
})

const unused = Effect.die(new Error("not used by a batcher"))

/** The answer of a store that refused the rows at these positions of so many, and wrote the others. */
export const refusing = (count: number, positions: ReadonlyArray<number>): Store.WriteResult => ({
  ...Store.allChanged(count - positions.length),
  refused: positions.map((position) => ({ position, why: "refused by the test" }))
})

/** A test that answers with nothing in particular means that every row changed. */
const resultOf =
  (count: number) =>
  (answer: unknown): Store.WriteResult =>
    Predicate.hasProperty(answer, "refused") ? (answer as Store.WriteResult) : Store.allChanged(count)

/** A store of which nothing may be called. */
export const unusedStore = Store.Store.of({
  batchUpdateMetadata: () => unused,
  batchInsertStats: () => unused,
  metadataOf: () => unused,
  agents: () => unused,
  deleteAgents: () => unused
})

/** A running batcher over a scripted store and pubsub. */
export const start = Effect.fnUntraced(function* (options?: MetadataBatcher.Options) {
  const writes = yield* makeScript<MetadataBatch, Store.StoreError>()
  const publishes = yield* makeScript<Publication, Pubsub.PubsubError>()
  const store = Store.Store.of({
    ...unusedStore,
    batchUpdateMetadata: (batch) => Effect.map(writes.run(batch), resultOf(batch.agentIds.length))
  })
  const pubsub = Pubsub.Pubsub.of({
    publish: (channel, payloads) => Effect.asVoid(publishes.run({ channel, payloads })),
    subscribe: () => unused
  })
  const running = yield* run(
    "metadata",
    MetadataBatcher.make(options).pipe(
      Effect.provideService(Store.Store, store),
      Effect.provideService(Pubsub.Pubsub, pubsub)
    )
  )
  return { ...running, writes, publishes }
})

/** A running `StatsBatcher` over a scripted store. */
export const startStats = Effect.fnUntraced(function* (options?: StatsBatcher.Options) {
  const writes = yield* makeScript<ReadonlyArray<AgentStatsRow>, Store.StoreError>()
  const store = Store.Store.of({
    ...unusedStore,
    batchInsertStats: (rows) => Effect.map(writes.run(rows), resultOf(rows.length))
  })
  const running = yield* run("stats", Effect.provideService(StatsBatcher.make(options), Store.Store, store))
  return { ...running, writes }
})

export type Started = Effect.Success<ReturnType<typeof start>>

/** Checks everything counted since the batcher started; what is not expected is 0. */
export const assertMetrics = Effect.fnUntraced(function* (
  { metrics, valueOf }: Pick<Started, "metrics" | "valueOf">,
  expected: {
    /** Batches by reason. */
    readonly batches: Partial<Record<Batcher.Reason, number>>
    readonly flushed: number
    /** Agents of all batches together. */
    readonly agents: number
    readonly dropped?: number
    readonly superseded?: number
    readonly discarded?: number
    readonly publishErrors?: number
  }
) {
  const reasons = ["capacity", "scheduled", "shutdown", "manual"] as const
  for (const reason of reasons) {
    const count = expected.batches[reason] ?? 0
    const batches = yield* valueOf(Metric.withAttributes(metrics.batches, { reason }))
    const durations = yield* valueOf(Metric.withAttributes(metrics.flushDuration, { reason }))
    assert.deepStrictEqual([reason, batches.count, durations.count], [reason, count, count])
  }
  for (const counter of ["flushed", "dropped", "superseded", "discarded", "publishErrors"] as const) {
    const { count } = yield* valueOf(metrics[counter])
    assert.deepStrictEqual([counter, count], [counter, expected[counter] ?? 0])
  }
  const size = yield* valueOf(metrics.batchSize)
  const utilization = yield* valueOf(metrics.batchUtilization)
  assert.strictEqual(
    size.count,
    reasons.reduce((sum, reason) => sum + (expected.batches[reason] ?? 0), 0)
  )
  assert.strictEqual(utilization.count, expected.agents)
  assert.deepStrictEqual([size.sum, utilization.sum], [expected.flushed, expected.flushed])
})

export const assertAddsUp = (account: Batcher.Accounting) =>
  Effect.sync(() => {
    const {
      discarded,
      dropped,
      inFlight,
      offered,
      pending,
      queued,
      refused,
      superseded,
      unchanged,
      written
    } = account
    assert.strictEqual(
      dropped + queued + superseded + unchanged + pending + inFlight + refused + written + discarded,
      offered,
      JSON.stringify(account)
    )
  })

export const makeAgentId = (): AgentId => AgentId.make(crypto.randomUUID())

/** Agent ids in a fixed order: number 0, 1, … */
export const agentIdOf = (number: number): AgentId =>
  AgentId.make(`00000000-0000-4000-8000-${number.toString(16).padStart(12, "0")}`)

export const fact = (key: string, value: string, at = 0, error = ""): Metadata => ({
  key,
  value,
  error,
  collectedAt: DateTime.makeUnsafe(at)
})

/** `count` facts of different keys. */
export const facts = (count: number, value = "", at = 0): ReadonlyArray<Metadata> =>
  Array.from({ length: count }, (_, key) => fact(`key ${key}`, value, at))

/** A batch as rows of agent id, key, value, time; sorted, as no order is promised. */
export const rowsOf = (batch: MetadataBatch): ReadonlyArray<readonly [AgentId, string, string, number]> => {
  for (const column of [batch.keys, batch.values, batch.errors, batch.collectedAt]) {
    assert.strictEqual(column.length, batch.agentIds.length)
  }
  return batch.agentIds
    .map(
      (agentId, row) =>
        [
          agentId,
          batch.keys[row] ?? "",
          batch.values[row] ?? "",
          batch.collectedAt[row] ?? Number.NaN
        ] as const
    )
    .sort(([agentA, keyA], [agentB, keyB]) => (agentA + keyA < agentB + keyB ? -1 : 1))
}

/** The agents that a notification names, in their order. */
export const agentsOf = (payload: string): ReadonlyArray<AgentId> =>
  Result.getOrThrow(AgentIdChunks.decode(payload))
