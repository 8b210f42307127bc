/**
 * A batcher over a `Store` and a `Pubsub` that do what the test tells them, with
 * metrics and logs of the test's own.
 *
 * A test waits for events ("the next write began") or for a state ("nothing is
 * queued"); it never counts turns of the event loop. Whatever a test does, its
 * double of the store sees that no batcher breaks a rule: a key twice in one
 * statement, too many rows or writes at once, a notification before its rows.
 */
import { assert } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type * as Batcher from "../../src/Batcher.ts"
import * as BatcherMetrics from "../../src/BatcherMetrics.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as StatsBatcher from "../../src/StatsBatcher.ts"
import * as Store from "../../src/Store.ts"
import { assertAddsUp, identify } from "./Facts.ts"
import * as FakePubsub from "./FakePubsub.ts"
import * as FakeStore from "./FakeStore.ts"
import { captureLogs, type LogLine } from "./Logs.ts"
import type { Fault } from "./Script.ts"

export { agentIdOf, agentsOf, assertAddsUp, fact, facts, identify, makeAgentId, rowsOf } from "./Facts.ts"
export { isPoison, poison, refusesPoison, refusing } from "./FakeStore.ts"
export { captureLogs, type LogLine, warnings } from "./Logs.ts"
export type { Fault } from "./Script.ts"

/** Milliseconds since the epoch, as the test's clock has it. */
export const now = TestClock.testClockWith((clock) => Effect.sync(clock.currentTimeMillisUnsafe))

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
  const close = Scope.close(scope, Exit.void)

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
    /** What the account says at this moment, which has to add up. */
    assertAccount: (expected: Partial<Batcher.Accounting>) =>
      Effect.tap(batcher.accounting, (account) =>
        Effect.andThen(
          assertAddsUp(account),
          Effect.sync(() => assert.deepInclude(account, expected))
        )
      ),
    close,
    /** Closes the batcher, letting time pass until it has: how long that took, and what was said. */
    closeInTime: Effect.gen(function* () {
      const [from, said] = [yield* now, lines.length]
      const closing = yield* Effect.forkChild(Effect.andThen(close, now), { startImmediately: true })
      for (let waited = 0; closing.pollUnsafe() === undefined && waited < 60; waited++) {
        yield* TestClock.adjust("1 second")
      }
      return { took: (yield* Fiber.join(closing)) - from, logs: lines.slice(said) }
    })
  }
})

/** A store and a pubsub that several batchers may share. */
export const makeWorld = Effect.fnUntraced(function* (
  options?: Pick<Batcher.Options, "maxBatchSize" | "writeConcurrency">
) {
  const violations: Array<string> = []
  const pubsub = yield* FakePubsub.make(violations)
  const store = yield* FakeStore.make({ ...options, violations, onApplied: pubsub.noteApplied })
  // Whatever else a test looks at.
  yield* Effect.addFinalizer(() => Effect.sync(() => assert.deepStrictEqual(violations, [])))
  return {
    ...store,
    ...pubsub,
    /** What no batcher may do, as it was seen. */
    violations: violations as ReadonlyArray<string>,
    /** The value that a reader finds. */
    valueHeld: (agentId: Parameters<typeof identify>[0]["agentId"], key: string) =>
      store.held.get(identify({ agentId, key }))?.value,
    /** What happens to the calls from now on. */
    inject: (faults: { readonly write?: ReadonlyArray<Fault>; readonly publish?: ReadonlyArray<Fault> }) => {
      if (faults.write !== undefined) store.writes.suffer(faults.write)
      if (faults.publish !== undefined) pubsub.publishes.suffer(faults.publish)
    }
  }
})

export type World = Effect.Success<ReturnType<typeof makeWorld>>

/** A running batcher over a store and a pubsub of its own, or ones that it shares. */
export const start = Effect.fnUntraced(function* (options?: MetadataBatcher.Options, shared?: World) {
  const world = shared ?? (yield* makeWorld(options))
  const running = yield* run(
    "metadata",
    MetadataBatcher.make(options).pipe(
      Effect.provideService(Store.Store, world.store),
      Effect.provideService(Pubsub.Pubsub, world.pubsub)
    )
  )
  return { ...world, ...running }
})

/** A running `StatsBatcher` over a store of its own. */
export const startStats = Effect.fnUntraced(function* (options?: StatsBatcher.Options) {
  const world = yield* makeWorld({ maxBatchSize: 1024, ...options })
  const running = yield* run(
    "stats",
    Effect.provideService(StatsBatcher.make(options), Store.Store, world.store)
  )
  return { ...running, stats: world.stats, writes: world.statsWrites }
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
