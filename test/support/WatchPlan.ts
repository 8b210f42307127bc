/**
 * What a simulated watcher goes through: its options, then writes, watchers
 * that join and leave, lost announcements and reads that fail. A seed gives the
 * same plan every time.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { ReadFault } from "./WatchWorld.ts"

export type Step =
  | {
      readonly _tag: "Write"
      readonly agent: number
      readonly keys: ReadonlyArray<string>
      /** How much older than now the facts were collected. */
      readonly age: number
      readonly announced: boolean
    }
  | { readonly _tag: "Delete"; readonly agent: number; readonly announced: boolean }
  | {
      readonly _tag: "Join"
      readonly agent: number
      readonly keys: ReadonlyArray<string> | undefined
      /** Takes what is shown as soon as it is, or only when told to. */
      readonly eager: boolean
    }
  | { readonly _tag: "Leave"; readonly watcher: number }
  | { readonly _tag: "Take"; readonly watcher: number }
  | { readonly _tag: "Wait"; readonly millis: number }
  | { readonly _tag: "Resync" | "Cut" | "Garbage" }
  | { readonly _tag: "FailSubscribe"; readonly fails: boolean }
  | { readonly _tag: "Inject"; readonly faults: ReadonlyArray<ReadFault> }

/** Milliseconds: longer than any plan takes. */
export const never = 86_400_000

export interface Plan {
  readonly options: {
    readonly minInterval: number
    /** `never`, where everything that is lost leaves a trace: then it must be made good because of that. */
    readonly refreshInterval: number
    readonly readConcurrency: number
  }
  readonly steps: ReadonlyArray<Step>
}

export const make = (seed: number): Effect.Effect<Plan> =>
  Effect.map(Random.Random, generate).pipe(Random.withSeed(seed))

const generate = (random: Random.Random): Plan => {
  const below = (limit: number) => Math.floor(random.nextDoubleUnsafe() * limit)
  const chance = (probability: number) => random.nextDoubleUnsafe() < probability
  const oneOf = <A>(first: A, ...rest: ReadonlyArray<A>): A =>
    [first, ...rest][below(rest.length + 1)] ?? first
  const many = <A>(count: number, make: () => A): Array<A> => Array.from({ length: count }, make)

  const minInterval = oneOf(250, 1000)
  const refreshes = chance(0.5)
  const options: Plan["options"] = {
    minInterval,
    refreshInterval: refreshes ? minInterval * oneOf(10, 40) : never,
    readConcurrency: oneOf(1, 1, 3)
  }
  const agents = oneOf(1, 3, 10)
  const keys = many(oneOf(1, 4), () => `key ${below(4)}`)
  const loses = refreshes ? oneOf(0, 0.3, 1) : 0
  const hangs = chance(0.1)
  const maxAge = oneOf(0, 0, 3 * minInterval)

  const fault = (): ReadFault => {
    const kind = below(8)
    if (kind < 3)
      return { _tag: "Delay", millis: 10 * below(minInterval / 2) + 3, reads: oneOf("first", "last") }
    if (kind === 3) return { _tag: oneOf("Die", "Throw", "Interrupt", "Garbage") }
    if (kind === 4 && hangs) return { _tag: "Hang", interruptible: chance(0.5) }
    return {
      _tag: "Fail",
      reason: oneOf("Unavailable", "Canceled", "Rejected"),
      millis: chance(0.5) ? 0 : 10 * below(minInterval) + 3
    }
  }

  const step = (): ReadonlyArray<Step> => {
    const kind = below(24)
    const write = (): Step => ({
      _tag: "Write",
      agent: below(agents),
      keys: Array.from(new Set(many(1 + below(3), () => oneOf("key 0", ...keys)))),
      age: below(maxAge),
      announced: !chance(loses)
    })
    if (kind < 6) return [write()]
    if (kind < 7) return many(1 + below(30), write)
    if (kind < 11)
      return [
        {
          _tag: "Join",
          agent: below(agents),
          keys: chance(0.3) ? keys.slice(0, below(keys.length + 1)) : undefined,
          eager: chance(0.6)
        }
      ]
    if (kind < 12) return [{ _tag: "Leave", watcher: below(20) }]
    if (kind < 14) return [{ _tag: "Take", watcher: below(20) }]
    if (kind < 18) return [{ _tag: "Wait", millis: below((chance(0.2) ? 20 : 3) * minInterval) }]
    if (kind < 19) return [{ _tag: "Delete", agent: below(agents), announced: !chance(loses) }]
    if (kind < 20) return [{ _tag: oneOf("Resync", "Cut", "Garbage") }]
    if (kind < 21) return [{ _tag: "FailSubscribe", fails: chance(0.5) }, { _tag: oneOf("Resync", "Cut") }]
    if (kind < 22) return [{ _tag: "Inject", faults: [] }]
    return [{ _tag: "Inject", faults: many(1 + below(4), fault) }]
  }

  return { options, steps: many(5 + below(40), step).flat() }
}
