/**
 * Runs random plans under a simulated clock: a seed gives the same plan every
 * time. `SEED=149` runs that plan alone.
 */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"

interface Simulation<Plan> {
  readonly make: (seed: number) => Effect.Effect<Plan>
  readonly simulate: (plan: Plan) => Effect.Effect<void, unknown, Scope.Scope>
  /** What of a plan tells it from others, for the message of one that fails. */
  readonly optionsOf: (plan: Plan) => unknown
  /** Plans in an ordinary run of the tests. */
  readonly plans: number
  readonly timeout: number
  /** Goes on with fresh plans for so long. */
  readonly soakMinutes?: number
}

export const describePlans = <Plan>(title: string, simulation: Simulation<Plan>): void => {
  const { make, optionsOf, plans, simulate, soakMinutes = 0, timeout } = simulation

  const runSeed = (seed: number): Effect.Effect<void, Error> =>
    make(seed).pipe(
      Effect.flatMap((plan) =>
        Effect.mapErrorEager(
          Effect.catchDefect(Effect.scoped(simulate(plan)), (defect) => Effect.fail(defect)),
          (cause) => {
            const what = JSON.stringify(optionsOf(plan))
            return new Error(`plan ${seed} (${what}), again with SEED=${seed}: ${cause}`, { cause })
          }
        )
      ),
      // The jitter of pauses comes from the seed as well.
      Random.withSeed(seed),
      Effect.provide([TestClock.layer(), Logger.layer([])])
    )

  const given = process.env["SEED"]
  describe(title, () => {
    if (given !== undefined) {
      it.live(`plan ${given}`, () => runSeed(Number(given)))
      return
    }
    it.live(
      `${plans} plans`,
      () =>
        Effect.forEach(
          Array.from({ length: plans }, (_, i) => i),
          runSeed,
          { discard: true }
        ),
      timeout
    )
    if (soakMinutes === 0) return
    const first = Date.now()
    it.live(
      `plans for ${soakMinutes} minutes, from seed ${first}`,
      () =>
        Effect.suspend(() => {
          let seed = first
          const until = Date.now() + soakMinutes * 60_000
          return Effect.whileLoop({
            while: () => Date.now() < until,
            body: () => runSeed(seed++),
            step: () => {}
          })
        }),
      (soakMinutes + 1) * 60_000
    )
  })
}
