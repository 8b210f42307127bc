import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { AgentId } from "../src/AgentId.ts"
import { maxPauseMillis, readTimeoutMillis } from "../src/internal/watcher/rounds.ts"
import * as MetadataWatcher from "../src/MetadataWatcher.ts"
import { Pubsub } from "../src/Pubsub.ts"
import { Store } from "../src/Store.ts"
import { agentIdOf } from "./support/Fakes.ts"
import { describePlans } from "./support/Seeds.ts"
import * as Plan from "./support/WatchPlan.ts"
import * as World from "./support/WatchWorld.ts"

/** Plans in an ordinary run of the tests. */
const plans = 2_000

/** The time to recover passes in so many parts, and one more. */
const parts = 4

/**
 * The longest it takes once all is well again: until what is under way has been
 * answered or given up; until the next attempt, which reads everything; until
 * the subscription stands again, or what was announced to nobody is refreshed,
 * and the round that follows.
 */
const recoveryTime = ({ options, steps }: Plan.Plan): number => {
  const faults = steps.flatMap((step) => (step._tag === "Inject" ? step.faults : []))
  const longestRead = Math.max(
    0,
    ...faults.map((fault) =>
      fault._tag === "Hang" ? readTimeoutMillis : "millis" in fault ? fault.millis : 0
    )
  )
  const longestPause = 1.2 * Math.max(options.minInterval, maxPauseMillis)
  const untilRead = options.refreshInterval === Plan.never ? 0 : options.refreshInterval
  return longestRead + 2 * longestPause + untilRead + 2 * options.minInterval
}

/** Somebody who watches, and all that was shown to it. */
interface Viewer {
  readonly agentId: AgentId
  readonly keys: ReadonlyArray<string> | undefined
  readonly eager: boolean
  readonly views: ReadonlyArray<MetadataWatcher.View>
  readonly take: Effect.Effect<void>
  readonly leave: Effect.Effect<void>
  readonly hasEnded: () => boolean
}

const join = Effect.fnUntraced(function* (
  watcher: MetadataWatcher.MetadataWatcher["Service"],
  agentId: AgentId,
  { eager, keys }: Extract<Plan.Step, { readonly _tag: "Join" }>
): Effect.fn.Return<Viewer> {
  const views: Array<MetadataWatcher.View> = []
  const keep = (view: MetadataWatcher.View) => Effect.sync(() => void views.push(view))
  const scope = yield* Scope.make()
  const stream = watcher.watch(agentId, { keys })
  const viewer = { agentId, keys, eager, views, leave: Scope.close(scope, Exit.void) }
  if (eager) {
    const fiber = yield* Effect.forkIn(Stream.runForEach(stream, keep), scope, { startImmediately: true })
    return { ...viewer, take: Effect.void, hasEnded: () => fiber.pollUnsafe() !== undefined }
  }
  const pull = yield* Scope.provide(Stream.toPull(stream), scope)
  let pulling: Fiber.Fiber<unknown, unknown> | undefined
  return {
    ...viewer,
    take: Effect.suspend(() => {
      if (pulling !== undefined && pulling.pollUnsafe() === undefined) return Effect.void
      const next = Effect.flatMap(pull, ([view]) => keep(view))
      return Effect.map(Effect.forkIn(next, scope, { startImmediately: true }), (fiber) => {
        pulling = fiber
      })
    }),
    hasEnded: () => {
      const exit = pulling?.pollUnsafe()
      return exit !== undefined && Exit.isFailure(exit)
    }
  }
})

const simulate = Effect.fnUntraced(function* (plan: Plan.Plan) {
  const { options } = plan
  const clock = yield* Clock.Clock
  const world = yield* World.make
  const scope = yield* Scope.make()
  const watcher = yield* MetadataWatcher.make(options).pipe(
    Effect.provideService(Store, world.store),
    Effect.provideService(Pubsub, world.pubsub),
    Scope.provide(scope)
  )
  const viewers: Array<Viewer> = []
  let written = 0

  const run = Effect.fnUntraced(function* (step: Plan.Step) {
    switch (step._tag) {
      case "Write": {
        const collectedAt = DateTime.makeUnsafe(1_000_000 + clock.currentTimeMillisUnsafe() - step.age)
        const facts = step.keys.map((key) => ({ key, value: `${written++}`, error: "", collectedAt }))
        return yield* world.write(agentIdOf(step.agent), facts, step)
      }
      case "Delete":
        yield* world.remove(agentIdOf(step.agent))
        return step.announced ? yield* world.announce([agentIdOf(step.agent)]) : undefined
      case "Join":
        viewers.push(yield* join(watcher, agentIdOf(step.agent), step))
        return
      case "Leave":
        return yield* viewers.splice(step.watcher, 1)[0]?.leave ?? Effect.void
      case "Take":
        return yield* viewers[step.watcher]?.take ?? Effect.void
      case "Wait":
        return yield* TestClock.adjust(step.millis)
      case "Resync":
        return yield* world.resync
      case "Cut":
        return yield* world.cut
      case "Garbage":
        return yield* world.publish("what is this?")
      case "FailSubscribe":
        return world.failSubscribe(step.fails)
      case "Inject":
        return world.inject(step.faults)
    }
  })

  const check = Effect.gen(function* () {
    for (const { agentId, eager, hasEnded, keys, views } of viewers) {
      assert.isFalse(hasEnded(), "a stream that ended")
      world.assertForwards(agentId, views, keys)
      if (!eager) continue
      for (const [i, view] of views.slice(1).entries()) {
        const before = views[i] as MetadataWatcher.View
        const isSame =
          World.show(before.facts) === World.show(view.facts) && before.staleSince === view.staleSince
        assert.isFalse(isSame, "shown again though nothing had changed")
      }
    }
    const status = yield* watcher.status
    assert.strictEqual(status.watchers, viewers.length)
    assert.strictEqual(status.agents, new Set(viewers.map(({ agentId }) => agentId)).size)
    // One statement a round.
    for (const [i, { at }] of world.reads.slice(1).entries()) {
      assert.isAtLeast(at - (world.reads[i]?.at ?? 0), options.minInterval)
    }
  })

  for (const step of plan.steps) {
    yield* run(step)
    if (step._tag === "Wait") yield* check
  }

  world.inject([])
  world.failSubscribe(false)
  // In parts: the clock does not wait for what could run before it was set forward.
  for (let part = 0; part <= parts; part++) yield* TestClock.adjust(Math.ceil(recoveryTime(plan) / parts))
  for (const viewer of viewers) {
    // A slow one takes what it has not asked for yet; the last take waits for more.
    yield* viewer.take
    yield* viewer.take
  }
  yield* check
  for (const { agentId, keys, views } of viewers) {
    const view = views.at(-1)
    assert.strictEqual(World.show(view?.facts ?? []), World.show(yield* world.held(agentId), keys))
    assert.isDefined(view)
    assert.isUndefined(view?.staleSince)
  }
  const status = yield* watcher.status
  assert.isTrue(status.subscribed)
  assert.isTrue(Option.isNone(status.staleSince))
  assert.strictEqual(world.standing(), 1)

  for (const viewer of viewers.splice(0)) yield* viewer.leave
  yield* check
  yield* Scope.close(scope, Exit.void)
  assert.strictEqual(world.standing(), 0)
})

describePlans("whatever is written, lost, refused and joined, every watcher ends with what the store holds", {
  make: Plan.make,
  simulate,
  optionsOf: ({ options }) => options,
  plans,
  timeout: 300_000
})
