/**
 * Builds layers of both batchers and interrupts each build at a random instant,
 * counted in steps of its fiber. A build that is interrupted, or its layer's
 * close, must neither die nor leave a fiber running.
 *
 *   node scripts/soak/interruptedBuilds.ts --builds 2000 --seed 1
 *
 * Prints the figures; exits with 1 if anything died or was left running.
 */
import { parseArgs } from "node:util"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as StatsBatcher from "../../src/StatsBatcher.ts"
import * as Store from "../../src/Store.ts"

export interface Figures {
  readonly completed: number
  readonly interrupted: number
  /** What died, with its stack. */
  readonly defects: ReadonlyArray<string>
  /** Gauges of batchers that are gone, each of which is read for as long as its batcher is held, and subscriptions. */
  readonly leftRunning: number
}

/** The latest instant, in turns of the scheduler: a build takes about 250 of them, and its close 325. */
const maxTurns = 600

export const interruptBuilds = Effect.fnUntraced(function* (options: {
  readonly builds: number
  readonly seed: number
}): Effect.fn.Return<Figures> {
  const registry = new Map()
  let subscriptions = 0
  const layerPubsub = Layer.effect(
    Pubsub.Pubsub,
    Effect.map(Pubsub.makeMemory, ({ pubsub }) => ({
      ...pubsub,
      subscribe: (channel: string) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            subscriptions += 1
          }),
          () =>
            Effect.sync(() => {
              subscriptions -= 1
            })
        ).pipe(Effect.andThen(pubsub.subscribe(channel)))
    }))
  )
  const layer = Layer.merge(
    MetadataBatcher.layer({ unchanged: "1 minute", onDiscarded: () => Effect.void }),
    StatsBatcher.layer()
  ).pipe(Layer.provide([Store.layerMemory, layerPubsub]))
  const defects: Array<string> = []
  let completed = 0
  let interrupted = 0

  const one = Effect.gen(function* () {
    const turns = yield* Random.nextIntBetween(1, maxTurns)
    let isBuilt = false
    const built = Effect.scoped(
      Effect.andThen(
        Layer.build(layer),
        Effect.sync(() => {
          isBuilt = true
        })
      )
    )
    // Yields after every so many steps, so that the interruption can come in between.
    const fiber = yield* Effect.forkChild(Effect.provideService(built, Scheduler.MaxOpsBeforeYield, 3))
    for (let turn = 0; turn < turns && fiber.pollUnsafe() === undefined; turn++) yield* Effect.yieldNow
    yield* Fiber.interrupt(fiber)
    const exit = yield* Fiber.await(fiber)
    if (isBuilt) completed += 1
    else interrupted += 1
    if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) defects.push(Cause.pretty(exit.cause))
  })

  // A defect of a fiber that nobody awaits is a log line at most.
  const logger = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
    if (logLevel === "Error" || logLevel === "Fatal")
      defects.push(`${String(message)} ${Cause.pretty(cause)}`)
  })
  yield* Effect.repeat(one, { times: options.builds - 1 }).pipe(
    Random.withSeed(options.seed),
    Effect.provideService(Metric.MetricRegistry, registry),
    Effect.provide(Logger.layer([logger]))
  )
  const left = yield* Effect.provideService(Metric.snapshot, Metric.MetricRegistry, registry)
  const gauges = left.filter(({ type }) => type === "Gauge").length
  return { completed, interrupted, defects, leftRunning: gauges + subscriptions }
})

if (import.meta.main) {
  const { values } = parseArgs({
    options: { builds: { type: "string", default: "2000" }, seed: { type: "string", default: "1" } }
  })
  const figures = await Effect.runPromise(
    interruptBuilds({ builds: Number(values.builds), seed: Number(values.seed) })
  )
  const { completed, defects, interrupted, leftRunning } = figures
  console.log(
    `${interrupted} builds interrupted, ${completed} complete, ${leftRunning} gauges or subscriptions left`
  )
  for (const defect of defects.slice(0, 10)) console.error(defect)
  if (defects.length > 0 || leftRunning > 0) {
    console.error(`FAILED: ${defects.length} defects, ${leftRunning} gauges or subscriptions left`)
    process.exit(1)
  }
  console.log("PASSED: no defect, nothing left running (the process ends by itself)")
}
