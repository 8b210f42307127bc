/** A batcher's layer may be built by anybody and interrupted at any instant: nothing of them stays, and nothing goes wrong. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as TestClock from "effect/testing/TestClock"
import { interruptBuilds } from "../scripts/soak/interruptedBuilds.ts"
import * as MetadataBatcher from "../src/MetadataBatcher.ts"
import { Pubsub } from "../src/Pubsub.ts"
import { Store } from "../src/Store.ts"
import { agentIdOf, facts, makeWorld } from "./support/Fakes.ts"

describe("A layer's build", () => {
  it.live("that is interrupted at a random instant leaves no defect and nothing running: 50 of them", () =>
    Effect.gen(function* () {
      const { completed, defects, interrupted, leftRunning } = yield* interruptBuilds({ builds: 50, seed: 1 })
      assert.deepStrictEqual(defects, [])
      assert.strictEqual(leftRunning, 0)
      assert.strictEqual(completed + interrupted, 50)
      assert.isAbove(interrupted, 10)
    })
  )

  it.effect("leaves its span to no fiber that outlives it", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const parents = new Map<string, Array<string>>()
      const tracer = Tracer.make({
        span: (options) => {
          const { parent } = options
          const name = parent._tag === "Some" && parent.value._tag === "Span" ? parent.value.name : "none"
          parents.set(options.name, [...(parents.get(options.name) ?? []), name])
          return new Tracer.NativeSpan(options)
        }
      })
      const scope = yield* Scope.make()
      // An application builds its layers under a span, within a request perhaps.
      const batcher = yield* MetadataBatcher.make({
        unchanged: "1 minute",
        onWriteFailure: "discard",
        onDiscarded: () => Effect.withSpan(Effect.void, "dead letters")
      }).pipe(
        Effect.provideService(Store, world.store),
        Effect.provideService(Pubsub, {
          publish: (channel, payloads) => Effect.withSpan(world.pubsub.publish(channel, payloads), "notify"),
          subscribe: (channel) => Effect.withSpan(world.pubsub.subscribe(channel), "subscribe")
        }),
        Scope.provide(scope),
        Effect.withSpan("build"),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      world.publishes.answer(Effect.die("a bug in the pubsub"))
      batcher.addUnsafe(agentIdOf(1), facts(2))
      yield* TestClock.adjust("10 seconds")
      world.inject({ write: [{ _tag: "Fail", reason: "Unavailable", millis: 0 }] })
      batcher.addUnsafe(agentIdOf(2), facts(2))
      yield* TestClock.adjust("10 seconds")
      yield* Scope.close(scope, Exit.void).pipe(Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust("1 minute")
      // The first notification is below its flush; its retry belongs to none.
      assert.deepStrictEqual(Object.fromEntries(parents), {
        build: ["none"],
        subscribe: ["none"],
        "MetadataBatcher.flush": ["none", "none"],
        "MetadataBatcher.write": ["MetadataBatcher.flush", "MetadataBatcher.flush"],
        "MetadataBatcher.publish": ["MetadataBatcher.flush"],
        notify: ["MetadataBatcher.publish", "none"],
        "dead letters": ["none"]
      })
    })
  )

  it.effect("of many, one after the other, leaves no metric behind", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const registry = new Map()
      const layer = MetadataBatcher.layer().pipe(
        Layer.provide(Layer.succeed(Store, world.store)),
        Layer.provide(Layer.succeed(Pubsub, world.pubsub))
      )
      const gauges = Effect.map(
        Metric.snapshot,
        (metrics) => metrics.filter(({ type }) => type === "Gauge").length
      )
      yield* Effect.gen(function* () {
        for (let round = 0; round < 20; round++) {
          const inside = yield* Effect.scoped(Effect.andThen(Layer.build(layer), gauges))
          assert.isAbove(inside, 0)
          assert.strictEqual(yield* gauges, 0)
        }
      }).pipe(Effect.provideService(Metric.MetricRegistry, registry), Effect.provide(Logger.layer([])))
    })
  )
})
