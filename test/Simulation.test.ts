import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type { AgentId } from "../src/AgentId.ts"
import type * as Batcher from "../src/Batcher.ts"
import * as BatcherMetrics from "../src/BatcherMetrics.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import { Pubsub } from "../src/Pubsub.ts"
import { Store } from "../src/Store.ts"
import { toRows } from "./support/Facts.ts"
import { agentIdOf, assertAddsUp, identify, isPoison, makeWorld, poison } from "./support/Fakes.ts"
import * as Plan from "./support/Plan.ts"
import { describePlans } from "./support/Seeds.ts"

/** Plans in an ordinary run of the tests. */
const plans = 2_000

/** The default of `maxAhead`. */
const maxAhead = 60_000

/** By then a notification has been sent or given up, whatever `writeTimeout` says. */
const longestPublish = 30_000

/** A fact that the batcher may have taken. */
interface Offered {
  readonly key: string
  readonly value: string
  readonly collectedAt: number
  readonly sequence: number
}

/**
 * The longest that anything may wait once the store is well: until what is
 * under way has been answered or given up; until the next attempt, less than an
 * interval later; until the next scheduled flush. One that rests waits for
 * `unchanged`.
 */
const recoveryTime = (
  { interval, unchanged = 0, writeTimeout }: Plan.Plan["options"],
  longestFault: number
) => 2 * Math.max(writeTimeout, longestFault) + 5 * interval + unchanged

/** A row that was refused is tried again after a minute at the latest, and once one is written, all are. */
const longestRefused = 61_000

type World = Effect.Success<ReturnType<typeof makeWorld>>

/** What a reader has to find, told from all that was offered. */
const makeModel = (plan: Plan.Plan) => {
  const offered = new Map<string, Array<Offered>>()
  /** What was offered of an agent before it was forgotten may be missing. */
  const forgottenAt = new Map<string, number>()
  let sequence = 0
  const sizes = { least: Number.POSITIVE_INFINITY, most: 0 }
  return {
    count: () => sequence,
    /** Bytes of the smallest and of the largest fact. */
    sizes,
    nextValue: (poisoned: boolean) => {
      const value = plan.options.unchanged === undefined ? `${sequence}` : `${sequence % 3}`
      return poisoned ? poison(value) : value
    },
    note: (agentId: AgentId, key: string, value: string, collectedAt: number) => {
      const id = identify({ agentId, key })
      const all = offered.get(id) ?? []
      all.push({ key: id, value, collectedAt, sequence: sequence++ })
      offered.set(id, all)
      const size = 2 * (key.length + value.length)
      sizes.least = Math.min(sizes.least, size)
      sizes.most = Math.max(sizes.most, size)
    },
    forget: (agentId: AgentId) => forgottenAt.set(agentId, sequence),
    /** Nothing is held that was not offered, and if nothing was given up, the newest of each key. */
    check: ({ held }: World, isComplete: boolean, isOrdered: boolean) => {
      for (const [id, row] of held) {
        const found = offered
          .get(id)
          ?.some((one) => one.value === row.value && one.collectedAt === row.collectedAt)
        assert.isTrue(found, `${id} holds what nobody offered`)
      }
      if (!isComplete) return
      for (const [id, all] of offered) {
        const since = forgottenAt.get(id.slice(0, 36)) ?? 0
        const kept = all.filter((one) => one.sequence >= since)
        const newest = Math.max(...kept.map((one) => one.collectedAt))
        if (kept.length === 0) continue
        const row = held.get(id)
        assert.isAtLeast(row?.collectedAt ?? Number.NEGATIVE_INFINITY, newest, id)
        if (row?.collectedAt !== newest || since > 0) continue
        const peers = kept.filter((one) => one.collectedAt === newest)
        assert.include(
          isOrdered ? peers.slice(-1).map(({ value }) => value) : peers.map(({ value }) => value),
          row.value,
          id
        )
      }
    }
  }
}

const simulate = Effect.fnUntraced(function* (plan: Plan.Plan) {
  const { options } = plan
  const testClock = yield* Clock.Clock
  // Ages below zero are dated before 1970 otherwise.
  let offset = 100_000_000_000
  const wallClock: Clock.Clock = {
    ...testClock,
    currentTimeMillisUnsafe: () => testClock.currentTimeMillisUnsafe() + offset
  }
  const now = () => testClock.currentTimeMillisUnsafe()
  const world = yield* makeWorld(options)
  const scope = yield* Scope.make()
  const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()
  let evicted = 0
  const onDiscarded = (discarded: ReadonlyArray<MetadataBatcher.DiscardedFact>) =>
    Effect.sync(() => {
      evicted += discarded.filter(({ reason }) => reason === "evicted").length
    })
  const batcher = yield* MetadataBatcher.make({ ...options, onDiscarded }).pipe(
    Effect.provideService(Store, world.store),
    Effect.provideService(Pubsub, world.pubsub),
    Effect.provideService(Clock.Clock, wallClock),
    Effect.provideService(Metric.MetricRegistry, registry),
    Scope.provide(scope)
  )
  const model = makeModel(plan)

  const add = (step: Extract<Plan.Step, { readonly _tag: "Add" }>): number => {
    const agentId = agentIdOf(step.agent)
    const wall = wallClock.currentTimeMillisUnsafe()
    const facts = step.facts.map(({ age, key, poisoned }) => {
      const value = model.nextValue(poisoned)
      model.note(agentId, key, value, age < -maxAhead ? wall : wall - age)
      return { key, value, error: "", collectedAt: DateTime.makeUnsafe(wall - age) }
    })
    return batcher.addUnsafe(agentId, facts)
  }

  let isClosed = false
  const account = Effect.tap(batcher.accounting, assertAddsUp)
  // What is in flight comes on top of the bound, and may come back.
  const mostInFlight = options.writeConcurrency * options.maxBatchSize
  const { pendingBytes } = BatcherMetrics.make({ prefix: "agentapi", kind: "metadata" })
  const metricContext = Context.make(Metric.MetricRegistry, registry)
  const checkBytes = ({ inFlight, pending, queued, refused }: Batcher.Accounting, bytes: number): void => {
    const facts = inFlight + pending + queued + refused
    const { least, most } = model.sizes
    // A key that is being written takes its newer value all the same.
    assert.isAtMost(bytes, options.maxPendingBytes + inFlight * most)
    assert.isTrue(
      facts === 0 ? bytes === 0 : bytes >= facts * least && bytes <= facts * most,
      `${bytes} bytes of ${facts} facts, of ${least} to ${most} each; ${JSON.stringify({ inFlight, pending, queued, refused })}`
    )
  }
  const checkCounts = (now: Batcher.Accounting): void => {
    const { inFlight, offered, pending, queued, refused } = now
    const isBounded =
      inFlight <= mostInFlight &&
      pending + refused <= options.maxPending + mostInFlight &&
      queued <= options.capacity
    if (!isBounded || offered !== model.count() || Object.values(now).some((count) => !(count >= 0))) {
      assert.fail(`out of bounds: ${JSON.stringify(now)}, of ${model.count()} offered`)
    }
    if (world.violations.length > 0) assert.fail(world.violations.join(", "))
  }
  // In one go: a fiber may have to give way between any two effects.
  const checkBounds = Effect.sync(() => {
    const now = Effect.runSync(batcher.accounting)
    checkCounts(now)
    // The gauge goes with the batcher.
    if (!isClosed) checkBytes(now, pendingBytes.valueUnsafe(metricContext).value)
  })
  const check = Effect.andThen(account, checkBounds)

  const flushes: Array<Fiber.Fiber<unknown>> = []
  const run = Effect.fnUntraced(function* (step: Plan.Step) {
    switch (step._tag) {
      case "Add":
        add(step)
        return
      case "Wait":
        return yield* TestClock.adjust(step.millis)
      case "Flush":
        flushes.push(yield* Effect.forkChild(batcher.flush, { startImmediately: true }))
        return
      case "Forget": {
        const agentId = agentIdOf(step.agent)
        model.forget(agentId)
        flushes.push(yield* Effect.forkChild(batcher.forget(agentId), { startImmediately: true }))
        return
      }
      case "Jump":
        // Facts added in one turn of the event loop share a reading of the clock.
        yield* TestClock.adjust(0)
        offset += step.millis
        return
      case "Rule":
        return world.rule({
          refuses: (row) =>
            step.refusesAll || (step.refusesPoison && isPoison(row.value))
              ? "constraint violated"
              : undefined,
          tells: plan.tells,
          locks: (row) => row.agentId === agentIdOf(step.locked?.agent ?? -1) && row.key === step.locked?.key,
          maxRows: step.maxRows
        })
      case "Inject":
        return world.inject(step)
    }
  })

  world.rule({
    refuses: (row) => (isPoison(row.value) ? "constraint violated" : undefined),
    tells: plan.tells
  })
  for (const step of plan.steps) {
    yield* run(step)
    yield* check
  }

  const injected = plan.steps.flatMap((step) => (step._tag === "Inject" ? (step.write ?? []) : []))
  const longestFault = Math.max(0, ...injected.map((fault) => ("millis" in fault ? fault.millis : 0)))
  const isOrdered = options.writeConcurrency === 1 && injected.every((fault) => fault._tag !== "Late")
  const heard = () => world.writes.log.filter(({ outcome }) => outcome === "succeeded")
  const changed = () => heard().reduce((sum, { result }) => sum + (result?.changed ?? 0), 0)

  /** Whether readers have been told of everything that was written. */
  const checkAnnounced = () => {
    const toldAt = new Map<AgentId, number>()
    for (const { agents, at } of world.published) for (const agentId of agents) toldAt.set(agentId, at)
    for (const { endedAt = 0, request, result } of heard()) {
      const { missing = [], refused = [], superseded = [] } = result ?? {}
      const unwritten = new Set([...missing, ...superseded, ...refused.map(({ position }) => position)])
      toRows(request).forEach(({ agentId }, position) => {
        if (!unwritten.has(position)) assert.isAtLeast(toldAt.get(agentId) ?? -1, endedAt)
      })
    }
  }
  const isComplete = Effect.map(
    batcher.accounting,
    ({ discarded, dropped }) =>
      dropped === 0 &&
      // Refused ones give way where there is no room.
      evicted === 0 &&
      (discarded === 0 || plan.steps.some(({ _tag }) => _tag === "Forget")) &&
      options.onWriteFailure === "requeue"
  )

  if (plan.ending === "graceful") {
    world.inject({ write: [], publish: [] })
    world.rule({})
    yield* TestClock.adjust(recoveryTime(options, longestFault))
    if ((yield* batcher.accounting).refused > 0) {
      yield* TestClock.adjust(longestRefused + recoveryTime(options, longestFault))
    }
    yield* check
    const caughtUp = yield* account
    assert.deepInclude(caughtUp, { queued: 0, pending: 0, inFlight: 0, refused: 0, written: changed() })
    model.check(world, yield* isComplete, isOrdered)
    if (plan.steps.some((step) => step._tag === "Inject" && (step.publish ?? []).length > 0)) {
      yield* TestClock.adjust(longestPublish + 2 * options.interval)
    }
    if (options.unchanged === undefined) checkAnnounced()
    for (const flush of flushes) assert.isDefined(flush.pollUnsafe(), "a flush that never ends")
    for (const step of plan.last) add(step)
  }

  const before = yield* account
  const closedFrom = now()
  const closing = yield* Effect.forkChild(
    Effect.andThen(
      Scope.close(scope, Exit.void),
      Effect.sync(() => now())
    ),
    { startImmediately: true }
  )
  // Jittered pauses leave fractions of a millisecond.
  yield* TestClock.adjust(options.shutdownTimeout + 1)
  assert.isDefined(closing.pollUnsafe(), "a close that takes too long")
  assert.isAtMost(yield* Fiber.join(closing), closedFrom + options.shutdownTimeout + 1)
  isClosed = true
  const closed = yield* account
  assert.deepInclude(closed, { queued: 0, pending: 0, inFlight: 0, refused: 0 })
  yield* check

  if (plan.ending === "graceful") {
    assert.deepInclude(closed, { written: changed(), discarded: before.discarded })
    model.check(world, yield* isComplete, isOrdered)
  }
  // Each value is the number of its fact: a batcher that writes one at a time never goes back.
  const isInOrder = plan.steps.every(
    (step) => step._tag !== "Add" || step.facts.every(({ age }) => age === 0)
  )
  if (isOrdered && isInOrder && options.unchanged === undefined) {
    const last = new Map<string, number>()
    for (const row of world.applied) {
      const sequence = Number(/\d+/.exec(row.value)?.[0])
      assert.isAtLeast(sequence, last.get(identify(row)) ?? 0)
      last.set(identify(row), sequence)
    }
  }

  assert.strictEqual(add({ _tag: "Add", agent: 0, facts: [{ key: "late", age: 0, poisoned: false }] }), 0)
  assert.strictEqual((yield* account).dropped, closed.dropped + 1)
})

describePlans("random plans of bursts, waits, faults, deletions, jumps and closes keep the laws", {
  make: Plan.make,
  simulate,
  optionsOf: ({ ending, options, tells }) => ({ ...options, tells, ending }),
  plans,
  timeout: 300_000,
  soakMinutes: Number(process.env["SOAK_MINUTES"] ?? 0)
})
