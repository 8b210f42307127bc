import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { AgentId } from "../src/AgentId.ts"
import * as AgentIdChunks from "../src/AgentIdChunks.ts"
import { maxWaiting } from "../src/internal/watcher/changes.ts"
import { maxAgentsPerRead, readTimeoutMillis } from "../src/internal/watcher/rounds.ts"
import * as MetadataWatcher from "../src/MetadataWatcher.ts"
import { Pubsub } from "../src/Pubsub.ts"
import { Store } from "../src/Store.ts"
import * as WatcherMetrics from "../src/WatcherMetrics.ts"
import { agentIdOf, captureLogs, fact } from "./support/Fakes.ts"
import { withSpans } from "./support/Spans.ts"
import * as World from "./support/WatchWorld.ts"

const [first, second, third] = [agentIdOf(1), agentIdOf(2), agentIdOf(3)]

const start = Effect.fnUntraced(function* (options?: MetadataWatcher.Options) {
  const world = yield* World.make
  const registry: Context.Service.Shape<typeof Metric.MetricRegistry> = new Map()
  const [lines, logging] = captureLogs()
  const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
  const watcher = yield* MetadataWatcher.make(options).pipe(
    Effect.provideService(Store, world.store),
    Effect.provideService(Pubsub, world.pubsub),
    Effect.provideService(Metric.MetricRegistry, registry),
    Effect.provide(logging),
    Scope.provide(scope)
  )

  /** Watches until left, and keeps what is shown. */
  const see = Effect.fnUntraced(function* (agentId: AgentId, keys?: ReadonlyArray<string>) {
    const views: Array<MetadataWatcher.View> = []
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(watcher.watch(agentId, { keys }), (view) => Effect.sync(() => void views.push(view))),
      { startImmediately: true }
    )
    return {
      views,
      values: () => views.map(({ facts }) => facts.map(({ key, value }) => `${key} ${value}`).join(", ")),
      stale: () => views.map(({ staleSince }) => staleSince !== undefined),
      leave: Fiber.interrupt(fiber),
      hasEnded: () => fiber.pollUnsafe() !== undefined
    }
  })

  return {
    world,
    watcher,
    see,
    warnings: () => lines.filter(({ level }) => level === "Warn").map(({ message }) => message),
    lines,
    readsOf: () => world.reads.map(({ agentIds }) => agentIds),
    valueOf: <Input, State>(metric: Metric.Metric<Input, State>) =>
      Effect.provideService(Metric.value(metric), Metric.MetricRegistry, registry),
    metrics: WatcherMetrics.make({ prefix: "agentapi" }),
    close: Scope.close(scope, Exit.void)
  }
})

describe("a watcher", () => {
  it.effect("shows an agent at once, again after every change, and nothing while nothing changes", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      yield* world.write(first, [fact("cpu", "1")], { announced: false })
      const seen = yield* see(first)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(seen.values(), ["cpu 1"])
      yield* world.write(first, [fact("cpu", "2", 1)])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), ["cpu 1", "cpu 2"])
      yield* world.announce([first])
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(seen.values(), ["cpu 1", "cpu 2"])
      yield* world.write(first, [fact("cpu", "2", 2)])
      yield* world.write(first, [fact("cpu", "2", 2, "unreadable")])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        seen.views.slice(2).map(({ facts }) => facts),
        [[fact("cpu", "2", 2, "unreadable")]]
      )
    })
  )

  it.effect("shows an empty list of an agent without facts, and again once it is deleted", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      const seen = yield* see(first)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.views, [{ agentId: first, facts: [], staleSince: undefined }])
      yield* world.write(first, [fact("cpu", "1")])
      yield* TestClock.adjust("1 second")
      yield* world.remove(first)
      yield* world.announce([first])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), ["", "cpu 1", ""])
    })
  )

  it.effect("sorts what it shows by key, whatever order the store has", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      yield* world.write(first, [fact("b", "1"), fact("c", "1"), fact("a", "1")])
      const seen = yield* see(first)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), ["a 1, b 1, c 1"])
    })
  )

  it.effect("shows only the keys it was asked for, and nothing when others change", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      yield* world.write(first, [fact("cpu", "1"), fact("disk", "1")])
      const [all, cpu, none] = [yield* see(first), yield* see(first, ["cpu"]), yield* see(first, [])]
      yield* TestClock.adjust("1 second")
      yield* world.write(first, [fact("disk", "2", 1)])
      yield* TestClock.adjust("1 second")
      yield* world.write(first, [fact("cpu", "3", 2)])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(all.values(), ["cpu 1, disk 1", "cpu 1, disk 2", "cpu 3, disk 2"])
      assert.deepStrictEqual(cpu.values(), ["cpu 1", "cpu 3"])
      assert.deepStrictEqual(none.values(), [""])
    })
  )
})

describe("reading", () => {
  it.effect("takes one subscription, and one read for all that changed", () =>
    Effect.gen(function* () {
      const { readsOf, see, world } = yield* start()
      for (const agentId of [first, second, first, third, second]) yield* see(agentId)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(readsOf(), [[first, second, third]])
      yield* world.write(first, [fact("cpu", "1")], { announced: false })
      yield* world.write(third, [fact("cpu", "1")], { announced: false })
      yield* world.announce([first, third])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(readsOf().slice(1), [[first, third]])
      assert.strictEqual(world.subscriptions(), 1)
    })
  )

  it.effect("leaves out the agents that nobody watches", () =>
    Effect.gen(function* () {
      const { readsOf, see, world } = yield* start()
      yield* world.write(first, [fact("cpu", "1")])
      yield* world.resync
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(readsOf(), [])
      const seen = yield* see(second)
      yield* TestClock.adjust("1 second")
      yield* world.write(first, [fact("cpu", "2", 1)])
      yield* TestClock.adjust("1 second")
      yield* seen.leave
      yield* world.write(second, [fact("cpu", "1")])
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(readsOf(), [[second]])
    })
  )

  it.effect("begins no round within minInterval of the one before; a burst is one round", () =>
    Effect.gen(function* () {
      const { readsOf, see, world } = yield* start({ minInterval: "1 second" })
      const seen = yield* see(first)
      yield* see(second)
      yield* TestClock.adjust("10 seconds")
      const before = readsOf().length
      for (let i = 0; i < 50; i++) yield* world.write(i % 2 === 0 ? first : second, [fact("cpu", `${i}`, i)])
      yield* TestClock.adjust(0)
      for (let i = 50; i < 100; i++) {
        yield* world.write(first, [fact("cpu", `${i}`, i)])
        yield* TestClock.adjust(18)
      }
      assert.deepStrictEqual(readsOf().slice(before), [[first, second]])
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(readsOf().slice(before), [[first, second], [first]])
      assert.deepStrictEqual(seen.values().slice(1), ["cpu 48", "cpu 99"])
    })
  )

  it.effect("reads in the next round what is announced during a read", () =>
    Effect.gen(function* () {
      const { readsOf, see, world } = yield* start()
      const seen = yield* see(first)
      yield* TestClock.adjust("1 second")
      world.inject([{ _tag: "Delay", millis: 5_000, reads: "first" }])
      yield* world.write(first, [fact("cpu", "1")])
      yield* TestClock.adjust("1 second")
      yield* world.write(first, [fact("cpu", "2", 1)])
      world.inject([])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(readsOf().length, 2)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(seen.values(), ["", "cpu 1", "cpu 2"])
    })
  )

  it.effect("gives a new watcher what is held at once, while the store is busy", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      yield* world.write(first, [fact("cpu", "1")])
      yield* see(first)
      yield* TestClock.adjust("1 second")
      world.inject([{ _tag: "Hang", interruptible: true }])
      yield* world.announce([first])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* see(first)).values(), ["cpu 1"])
    })
  )

  it.effect("takes at most 2,000 agents a statement and no more statements at once than it may", () =>
    Effect.gen(function* () {
      for (const readConcurrency of [1, 2]) {
        const { readsOf, see, world } = yield* start({ readConcurrency, minInterval: "1 second" })
        for (let i = 0; i < 2 * maxAgentsPerRead + 1; i++) yield* see(agentIdOf(i))
        yield* TestClock.adjust("10 seconds")
        const before = readsOf().length
        world.inject([{ _tag: "Delay", millis: 100, reads: "first" }])
        yield* world.resync
        yield* TestClock.adjust("1 second")
        yield* TestClock.adjust("1 second")
        const reads = world.reads.slice(before)
        const atOnce = reads.map(
          ({ at }) => reads.filter((other) => other.at <= at && (other.endedAt ?? Infinity) > at).length
        )
        assert.strictEqual(Math.max(...atOnce), readConcurrency)
        assert.deepStrictEqual(
          readsOf()
            .slice(before)
            .map(({ length }) => length),
          [2_000, 2_000, 1]
        )
      }
    })
  )

  it.effect("is done outside of whatever the watcher was made or is watched in", () =>
    Effect.gen(function* () {
      const Connection = Context.Service<string, string>("effect/sql/SqlClient/TransactionConnection/0")
      const keys: Array<string> = []
      const world = yield* World.make
      const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
      const callers = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        effect.pipe(
          Effect.annotateLogs("request", "7"),
          Effect.withLogSpan("request"),
          Effect.withSpan("request"),
          Effect.provideService(Connection, "a transaction's connection")
        )
      const watcher = yield* MetadataWatcher.make().pipe(
        Effect.provideService(Pubsub, world.pubsub),
        Effect.provideService(Store, {
          ...world.store,
          metadataOf: () =>
            Effect.map(Effect.context(), (context) => {
              keys.push(...context.mapUnsafe.keys())
              return []
            })
        }),
        Scope.provide(scope),
        callers
      )
      yield* callers(Stream.runHead(watcher.watch(first)))
      assert.isNotEmpty(keys)
      assert.notInclude(keys, Connection.key)
      assert.notInclude(keys, "effect/Tracer/ParentSpan")
      assert.notInclude(keys, "effect/References/CurrentLogSpans")
    })
  )
})

describe("what was missed", () => {
  it.effect("is made good after refreshInterval at the latest, a part of it at a time", () =>
    Effect.gen(function* () {
      const { readsOf, see, world } = yield* start({ refreshInterval: "10 seconds" })
      const agents = Array.from({ length: 100 }, (_, i) => agentIdOf(i))
      const seen = yield* Effect.forEach(agents, (agentId) => see(agentId))
      yield* TestClock.adjust("2 seconds")
      for (const agentId of agents) yield* world.write(agentId, [fact("cpu", "1")], { announced: false })
      const before = readsOf().length
      yield* TestClock.adjust("10 seconds")
      for (const { values } of seen) assert.deepStrictEqual(values(), ["", "cpu 1"])
      const sizes = readsOf()
        .slice(before)
        .map(({ length }) => length)
      assert.isAtMost(Math.max(...sizes), 10)
      assert.isAtMost(
        sizes.reduce((sum, size) => sum + size, 0),
        110
      )
    })
  )

  it.effect("is read after a Resync and after an announcement that cannot be read", () =>
    Effect.gen(function* () {
      const { metrics, readsOf, see, valueOf, warnings, world } = yield* start()
      yield* see(first)
      yield* see(second)
      yield* TestClock.adjust("1 second")
      yield* world.resync
      yield* TestClock.adjust("1 second")
      yield* world.publish("no agents")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(readsOf(), [
        [first, second],
        [first, second],
        [first, second]
      ])
      assert.deepStrictEqual(warnings(), [
        "1 announcements that cannot be read; reading everything watched instead"
      ])
      assert.strictEqual((yield* valueOf(metrics.resyncs)).count, 2)
    })
  )

  it.effect("is read once the pubsub can be reached, which is tried on and on and mentioned once", () =>
    Effect.gen(function* () {
      const world = yield* World.make
      world.failSubscribe(true)
      const [lines, logging] = captureLogs()
      const watcher = yield* MetadataWatcher.make({ refreshInterval: "20 seconds" }).pipe(
        Effect.provideService(Store, world.store),
        Effect.provideService(Pubsub, world.pubsub),
        Effect.provide(logging)
      )
      const views: Array<MetadataWatcher.View> = []
      yield* Effect.forkScoped(
        Stream.runForEach(watcher.watch(first), (view) => Effect.sync(() => void views.push(view)))
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual(views.length, 1)
      assert.isFalse((yield* watcher.status).subscribed)
      yield* world.write(first, [fact("cpu", "1")])
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(views.length, 2, "refreshed")
      assert.isAtLeast(world.subscriptions(), 5)
      yield* world.write(first, [fact("cpu", "2", 1)])
      world.failSubscribe(false)
      yield* TestClock.adjust("7 seconds")
      assert.strictEqual(views.length, 3, "read when the subscription stood")
      assert.isTrue((yield* watcher.status).subscribed)
      const said = lines.filter(({ level }) => level === "Warn").map(({ message }) => message)
      assert.deepStrictEqual(said, [
        "cannot subscribe to changes; reading every refreshInterval until the pubsub can be reached",
        "subscribed to changes"
      ])
    })
  )

  it.effect("is read after the subscription was ended by the pubsub", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      const seen = yield* see(first)
      yield* TestClock.adjust("1 second")
      yield* world.cut
      yield* world.write(first, [fact("cpu", "1")])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), ["", "cpu 1"])
      assert.strictEqual(world.standing(), 1)
    })
  )
})

describe("a store that is away", () => {
  it.effect("ends no stream, whatever it does; since when what is shown may be stale is shown", () =>
    Effect.gen(function* () {
      const faults: ReadonlyArray<World.ReadFault> = [
        { _tag: "Fail", reason: "Unavailable", millis: 0 },
        { _tag: "Fail", reason: "Canceled", millis: 0 },
        { _tag: "Fail", reason: "Rejected", millis: 0 },
        { _tag: "Die" },
        { _tag: "Throw" },
        { _tag: "Interrupt" },
        { _tag: "Garbage" },
        { _tag: "Hang", interruptible: false }
      ]
      for (const fault of faults) {
        const { see, watcher, world } = yield* start()
        yield* world.write(first, [fact("cpu", "1")])
        const seen = yield* see(first)
        yield* TestClock.adjust("1 second")
        world.inject([fault])
        yield* world.write(first, [fact("cpu", "2", 1)])
        const since = yield* DateTime.now
        yield* TestClock.adjust(2 * readTimeoutMillis)
        assert.deepStrictEqual(seen.values(), ["cpu 1", "cpu 1"], fault._tag)
        assert.deepStrictEqual(seen.views[1]?.staleSince, since)
        assert.deepStrictEqual((yield* watcher.status).staleSince, Option.some(since))
        world.inject([])
        yield* TestClock.adjust(2 * readTimeoutMillis)
        assert.deepStrictEqual(seen.values(), ["cpu 1", "cpu 1", "cpu 2"])
        assert.deepStrictEqual(seen.stale(), [false, true, false])
        assert.isFalse(seen.hasEnded())
        assert.deepStrictEqual((yield* watcher.status).staleSince, Option.none())
      }
    })
  )

  it.effect("is not asked again and again, and nor is the pubsub", () =>
    Effect.gen(function* () {
      const world = yield* World.make
      world.failSubscribe(true)
      const watcher = yield* MetadataWatcher.make().pipe(
        Effect.provideService(Store, world.store),
        Effect.provideService(Pubsub, world.pubsub)
      )
      yield* Effect.forkScoped(Stream.runDrain(watcher.watch(first)))
      world.inject([{ _tag: "Fail", reason: "Unavailable", millis: 0 }])
      yield* TestClock.adjust("150 seconds")
      assert.isAtMost(world.reads.length, 50)
      assert.isAtMost(world.subscriptions(), 60)
    })
  )

  it.effect("is mentioned when it goes, once a minute, and when it is back, never with a value", () =>
    Effect.gen(function* () {
      const { lines, metrics, see, valueOf, warnings, world } = yield* start()
      yield* world.write(first, [fact("cpu", "secret")])
      yield* see(first)
      yield* TestClock.adjust("1 second")
      world.inject([{ _tag: "Fail", reason: "Unavailable", millis: 0 }])
      yield* world.announce([first])
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("149 seconds")
      const [begins, goesOn, ends] = [
        "cannot read what is watched; showing what was read before, until the store is back",
        "still cannot read what is watched",
        "what is watched can be read again"
      ]
      assert.deepStrictEqual(warnings(), [begins, goesOn, goesOn])
      const failures = Metric.withAttributes(metrics.readFailures, { reason: "Unavailable" })
      assert.isAtLeast((yield* valueOf(failures)).count, 25)
      const stale = (yield* valueOf(metrics.stale)).value
      assert.isTrue(stale > 145 && stale <= 150, `${stale} seconds`)
      world.inject([])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(warnings(), [begins, goesOn, goesOn, ends])
      assert.strictEqual((yield* valueOf(metrics.stale)).value, 0)
      assert.isTrue(lines.every((line) => line.annotations["watcher"] === "MetadataWatcher"))
      assert.notInclude(JSON.stringify(lines), "secret")
    })
  )

  it.effect("is told to who comes meanwhile, and read for them once it is back", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      yield* see(first)
      yield* TestClock.adjust("1 second")
      world.inject([{ _tag: "Fail", reason: "Unavailable", millis: 0 }])
      yield* world.write(second, [fact("cpu", "1")])
      yield* world.resync
      yield* TestClock.adjust("20 seconds")
      const seen = yield* see(second)
      assert.deepStrictEqual([seen.values(), seen.stale()], [[""], [true]])
      world.inject([])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        [seen.values(), seen.stale()],
        [
          ["", "cpu 1"],
          [true, false]
        ]
      )
    })
  )

  it.effect("has everything read again once it is back, announced or not", () =>
    Effect.gen(function* () {
      const { readsOf, see, world } = yield* start()
      yield* see(first)
      const seen = yield* see(second)
      yield* TestClock.adjust("1 second")
      world.inject([{ _tag: "Fail", reason: "Unavailable", millis: 0 }])
      yield* world.announce([first])
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(readsOf().at(-1), [first])
      yield* world.write(second, [fact("cpu", "1")], { announced: false })
      world.inject([])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), ["", "cpu 1"])
    })
  )
})

describe("whoever watches", () => {
  it.effect("finds the newest state when it is slow, and never a queue", () =>
    Effect.gen(function* () {
      const { see, watcher, world } = yield* start()
      yield* see(first)
      const door = Latch.makeUnsafe()
      const values: Array<string | undefined> = []
      yield* Effect.forkScoped(
        Stream.runForEach(watcher.watch(first), ({ facts }) =>
          Effect.andThen(
            Effect.sync(() => void values.push(facts[0]?.value)),
            door.await
          )
        )
      )
      for (let i = 0; i < 100; i++) {
        yield* world.write(first, [fact("cpu", `${i}`, i)])
        yield* TestClock.adjust("1 second")
      }
      yield* door.open
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(values.slice(1), ["99"])
    })
  )

  it.effect("frees what it held when it leaves, however it leaves", () =>
    Effect.gen(function* () {
      const { watcher, see } = yield* start()
      const counts = Effect.map(watcher.status, ({ agents, watchers }) => [agents, watchers])
      const seen = yield* see(first)
      yield* see(first)
      assert.deepStrictEqual(yield* counts, [1, 2])
      yield* seen.leave
      assert.deepStrictEqual(yield* counts, [1, 1])

      const taken = yield* Effect.forkChild(
        Stream.runCollect(
          Stream.flatMap(Stream.make(second, third, agentIdOf(4)), (agentId) =>
            Stream.take(watcher.watch(agentId), 1)
          )
        )
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(taken)).length, 3)
      assert.deepStrictEqual(yield* counts, [1, 1])

      const switched = yield* Effect.forkChild(
        Stream.runDrain(
          Stream.switchMap(Stream.concat(Stream.make(second, third), Stream.never), (agentId) =>
            watcher.watch(agentId)
          )
        )
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* counts, [2, 2])
      yield* Fiber.interrupt(switched)
      const failing = watcher.watch(second).pipe(Stream.mapEffect(() => Effect.fail("no")))
      const failed = yield* Effect.forkChild(Effect.flip(Stream.runDrain(failing)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(failed), "no")
      assert.deepStrictEqual(yield* counts, [1, 1])
    })
  )

  it.effect("is shown the newest when it comes back during a read that began before", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start()
      yield* world.write(first, [fact("cpu", "1")])
      world.inject([{ _tag: "Delay", millis: 2_000, reads: "first" }])
      const before = yield* see(first)
      yield* TestClock.adjust("1 second")
      yield* before.leave
      yield* world.write(first, [fact("cpu", "2", 1)], { announced: false })
      world.inject([])
      const after = yield* see(first)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(after.values(), ["cpu 2"])
    })
  )

  it.effect("sees its stream end with the watcher, and none begin after that", () =>
    Effect.gen(function* () {
      const { close, see, watcher } = yield* start()
      const seen = yield* see(first)
      const changes = yield* Effect.forkChild(Stream.runDrain(watcher.changes))
      yield* TestClock.adjust("1 second")
      assert.isFalse(seen.hasEnded())
      yield* close
      yield* Fiber.join(changes)
      assert.isTrue(seen.hasEnded())
      assert.isTrue((yield* see(second)).hasEnded())
      yield* Stream.runDrain(watcher.changes)
      assert.deepStrictEqual(yield* watcher.status, {
        watchers: 0,
        agents: 0,
        subscribed: false,
        staleSince: Option.none()
      })
    })
  )
})

describe("changes", () => {
  const collect = (watcher: MetadataWatcher.MetadataWatcher["Service"]) =>
    Effect.gen(function* () {
      const seen: Array<MetadataWatcher.Change> = []
      yield* Effect.forkScoped(
        Stream.runForEach(watcher.changes, (change) => Effect.sync(() => void seen.push(change))),
        { startImmediately: true }
      )
      return seen
    })
  const Resync: MetadataWatcher.Change = { _tag: "Resync" }
  const Changed = (...agentIds: ReadonlyArray<AgentId>): MetadataWatcher.Change => ({
    _tag: "Changed",
    agentIds
  })

  it.effect("tell of every agent, watched or not, and of what may have been missed", () =>
    Effect.gen(function* () {
      const { readsOf, watcher, world } = yield* start()
      const seen = yield* collect(watcher)
      yield* world.announce([first, second])
      yield* TestClock.adjust(0)
      yield* world.resync
      yield* TestClock.adjust(0)
      yield* world.announce([third])
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(seen, [Resync, Changed(first, second), Resync, Changed(third)])
      assert.deepStrictEqual(readsOf(), [])
    })
  )

  it.effect("are merged for who is slow, and become a Resync for who is too slow", () =>
    Effect.gen(function* () {
      const { warnings, watcher, world } = yield* start()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const pull = yield* Stream.toPull(watcher.changes)
          assert.deepStrictEqual(yield* pull, [Resync])
          for (const agentIds of [[first], [second, first], [first]]) yield* world.announce(agentIds)
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(yield* pull, [Changed(first, second)])
          const many = Array.from({ length: maxWaiting + 1 }, (_, i) => agentIdOf(i))
          yield* world.announce(many)
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(yield* pull, [Resync])
        })
      )
      // Garbage is mentioned as long as anybody wants to know of changes.
      yield* world.publish("no agents")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(warnings(), [])
    })
  )
})

describe("options of a watcher", () => {
  const bad: ReadonlyArray<readonly [option: string, options: MetadataWatcher.Options]> = [
    ["minInterval", { minInterval: 0 }],
    ["minInterval", { minInterval: Number.NaN }],
    ["refreshInterval", { minInterval: "2 seconds", refreshInterval: "1 second" }],
    ["refreshInterval", { refreshInterval: "100 days" }],
    ["readConcurrency", { readConcurrency: 0 }],
    ["readConcurrency", { readConcurrency: 1.5 }],
    ["channel", { channel: "" }],
    ["channel", { channel: "x".repeat(64) }],
    ["metricsPrefix", { metricsPrefix: "7up" }]
  ]
  it.effect("are checked when it is made, and named when they are nonsense", () =>
    Effect.gen(function* () {
      for (const [option, options] of bad) {
        const error = yield* Effect.flip(start(options))
        assert.strictEqual(error.option, option)
        assert.include(error.message, option)
      }
      yield* start({ minInterval: "1 minute" })
    })
  )

  it.effect("say which channel it listens to", () =>
    Effect.gen(function* () {
      const { see, world } = yield* start({ channel: "elsewhere" })
      const seen = yield* see(first)
      yield* TestClock.adjust("1 second")
      yield* world.write(first, [fact("cpu", "1")])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), [""])
      yield* world.publish(AgentIdChunks.encodeAgentId(first), "elsewhere")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.values(), ["", "cpu 1"])
    })
  )
})

describe("telemetry of a watcher", () => {
  it.effect("counts watchers, rounds, agents, and the time from an announcement to what it brings", () =>
    Effect.gen(function* () {
      const { close, metrics, see, valueOf, world } = yield* start({ minInterval: "1 second" })
      yield* see(first)
      yield* see(first)
      yield* see(second)
      yield* TestClock.adjust(0)
      world.inject([{ _tag: "Delay", millis: 500, reads: "last" }])
      yield* world.announce([first])
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* valueOf(metrics.watchers)).value, 3)
      assert.strictEqual((yield* valueOf(metrics.agents)).value, 2)
      assert.strictEqual((yield* valueOf(metrics.subscribed)).value, 1)
      assert.strictEqual((yield* valueOf(metrics.rounds)).count, 2)
      assert.strictEqual((yield* valueOf(metrics.agentsRead)).count, 3)
      assert.deepInclude(yield* valueOf(metrics.readDuration), { count: 2, sum: 0.5 })
      assert.deepInclude(yield* valueOf(metrics.delay), { count: 1, sum: 1.5 })
      yield* close
      assert.isFalse((yield* valueOf(metrics.watchers)).value > 0)
    })
  )

  it.effect(
    "opens one root span a round, around the store's own, without ids or values",
    withSpans((spans) =>
      Effect.gen(function* () {
        const world = yield* World.make
        const store = Store.of({
          ...world.store,
          metadataOf: (ids) => Effect.withSpan(world.store.metadataOf(ids), "SELECT")
        })
        const watcher = yield* MetadataWatcher.make().pipe(
          Effect.provideService(Store, store),
          Effect.provideService(Pubsub, world.pubsub),
          Effect.withSpan("whoever makes it")
        )
        yield* world.write(first, [fact("cpu", "secret")])
        const seen = yield* Effect.forkChild(
          Effect.withSpan(Stream.runHead(watcher.watch(first)), "whoever watches")
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(seen)
        world.inject([{ _tag: "Fail", reason: "Unavailable", millis: 0 }])
        yield* Effect.forkScoped(Stream.runDrain(watcher.watch(second)))
        yield* TestClock.adjust(0)
        const rounds = spans.named("MetadataWatcher.round")
        assert.deepStrictEqual(
          rounds.map(({ attributes, links, parentSpanContext }) => [attributes, links, parentSpanContext]),
          [
            [{ "watcher.round.agents": 1, "watcher.round.outcome": "read" }, [], undefined],
            [
              {
                "watcher.round.agents": 1,
                "watcher.round.outcome": "failed",
                "error.type": "Unavailable"
              },
              [],
              undefined
            ]
          ]
        )
        assert.deepStrictEqual(
          spans.childrenOf(rounds[0]).map(({ name }) => name),
          ["SELECT"]
        )
      })
    )
  )
})
