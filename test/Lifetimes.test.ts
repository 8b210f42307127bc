/** A batcher's layer may be built by anybody and interrupted at any instant: nothing of them stays, and nothing goes wrong. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
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

  it.effect("leaves nothing of whoever builds it in the fibers that outlive it", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld()
      const seen: Array<{ readonly parent: unknown; readonly root: boolean }> = []
      const tracer = Tracer.make({
        span: (options) => {
          if (options.name.startsWith("MetadataBatcher.")) {
            seen.push({ parent: options.parent, root: options.root })
          }
          return new Tracer.NativeSpan(options)
        }
      })
      const scope = yield* Scope.make()
      // An application builds its layers under a span, within a request perhaps.
      const batcher = yield* MetadataBatcher.make().pipe(
        Effect.provideService(Store, world.store),
        Effect.provideService(Pubsub, world.pubsub),
        Scope.provide(scope),
        Effect.withSpan("the request that built it"),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      batcher.addUnsafe(agentIdOf(1), facts(2))
      yield* TestClock.adjust("5 seconds")
      assert.isAtLeast(seen.length, 3)
      for (const { parent } of seen) {
        const name = (parent as { readonly value?: { readonly name?: string } } | undefined)?.value?.name
        assert.notStrictEqual(name, "the request that built it")
      }
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
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
