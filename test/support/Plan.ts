/**
 * What a simulated batcher goes through: its options, then bursts, waits,
 * flushes, deleted agents, clocks that jump and a store that misbehaves, and an
 * end. A seed gives the same plan every time.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { Rules } from "./FakeStore.ts"
import type { Fault } from "./Script.ts"

export interface PlannedFact {
  readonly key: string
  /** How much older than now it was collected; below 0 it is dated ahead. */
  readonly age: number
  readonly poisoned: boolean
}

export type Step =
  | { readonly _tag: "Add"; readonly agent: number; readonly facts: ReadonlyArray<PlannedFact> }
  | { readonly _tag: "Wait"; readonly millis: number }
  | { readonly _tag: "Flush" }
  | { readonly _tag: "Forget"; readonly agent: number }
  /** The wall clock is set to another time; what is measured goes on. */
  | { readonly _tag: "Jump"; readonly millis: number }
  | {
      readonly _tag: "Inject"
      readonly write?: ReadonlyArray<Fault>
      readonly publish?: ReadonlyArray<Fault>
    }
  /** Whether poisoned rows are refused, which row is locked, and which statements are too long, from now on. */
  | {
      readonly _tag: "Rule"
      readonly refusesPoison: boolean
      readonly refusesAll: boolean
      readonly locked: { readonly agent: number; readonly key: string } | undefined
      readonly maxRows: Rules["maxRows"]
    }

export interface Plan {
  readonly options: {
    readonly maxBatchSize: number
    readonly interval: number
    readonly capacity: number
    readonly maxPending: number
    readonly maxPendingBytes: number
    readonly shutdownTimeout: number
    readonly writeTimeout: number
    readonly writeConcurrency: number
    readonly onWriteFailure: "requeue" | "discard"
    readonly unchanged: number | undefined
  }
  /** What the store tells of the rows it refuses. */
  readonly tells: "nothing" | "names"
  readonly steps: ReadonlyArray<Step>
  /** Closes at the last step, whatever the store does, or after the store is well again and has caught up. */
  readonly ending: "abrupt" | "graceful"
  /** Added right before a graceful close. */
  readonly last: ReadonlyArray<Extract<Step, { readonly _tag: "Add" }>>
}

export const make = (seed: number): Effect.Effect<Plan> =>
  Effect.map(Random.Random, generate).pipe(Random.withSeed(seed))

const generate = (random: Random.Random): Plan => {
  const below = (limit: number) => Math.floor(random.nextDoubleUnsafe() * limit)
  const chance = (probability: number) => random.nextDoubleUnsafe() < probability
  const oneOf = <A>(first: A, ...rest: ReadonlyArray<A>): A =>
    [first, ...rest][below(rest.length + 1)] ?? first
  const many = <A>(count: number, make: () => A): Array<A> => Array.from({ length: count }, make)

  const maxBatchSize = oneOf(1, 3, 10, 100)
  const interval = oneOf(100, 1000, 5000)
  const agents = oneOf(1, 4, 12)
  const keys = oneOf(1, 5, 20)
  // Ages are 0 where facts come in the order in which they were collected.
  const maxAge = oneOf(0, 0, 3 * interval)
  const datesAhead = maxAge > 0 && chance(0.5)
  const poison = oneOf(0, 0, 0.02, 0.4)
  const options: Plan["options"] = {
    maxBatchSize,
    interval,
    capacity: maxBatchSize * oneOf(1, 2, 5, 20),
    maxPending: oneOf(maxBatchSize, 2 * maxBatchSize, 50_000),
    // A fact takes some twenty.
    maxPendingBytes: oneOf(2 ** 26, 2 ** 26, 2 ** 26, 500),
    // Long enough for a few retries, or too short for the next.
    shutdownTimeout: interval * oneOf(1, 5, 20),
    writeTimeout: oneOf(0, interval / 2, 3 * interval),
    writeConcurrency: oneOf(1, 1, 2),
    onWriteFailure: oneOf("requeue", "requeue", "requeue", "discard"),
    unchanged: oneOf(undefined, undefined, undefined, 5 * interval)
  }

  // No sum of these is a multiple of 10, as the timeouts are: an answer never comes at the moment it is given up.
  const duration = () => 10 * below(interval / 5) + 3
  const writeFault = (): Fault => {
    const kind = below(10)
    if (kind === 0) return { _tag: "Fail", reason: "Rejected", millis: 0 }
    if (kind === 1) return { _tag: oneOf("Die", "Throw", "Interrupt") }
    if (kind === 2) return { _tag: "Fail", reason: "Canceled", millis: 0 }
    if (kind === 3) return { _tag: "AnswerLost" }
    if (kind === 4) return { _tag: "Delay", millis: duration() }
    if (kind === 5) return { _tag: "Late", millis: 2 * duration() + 1 }
    if (kind === 6 && options.writeTimeout > 0) return { _tag: "Hang", interruptible: chance(0.5) }
    return { _tag: "Fail", reason: "Unavailable", millis: chance(0.5) ? 0 : duration() }
  }
  const publishFault = (): Fault =>
    oneOf<Fault>(
      { _tag: "Fail", reason: "Unavailable", millis: 0 },
      { _tag: "Fail", reason: "Rejected", millis: 0 },
      { _tag: "Die" },
      { _tag: "Throw" },
      { _tag: "Interrupt" },
      { _tag: "Delay", millis: duration() },
      { _tag: "Hang", interruptible: true },
      { _tag: "Hang", interruptible: false }
    )

  const age = (): number => {
    if (maxAge === 0) return 0
    return datesAhead && chance(0.1) ? -below(100_000_000) : below(maxAge)
  }
  const add = (): Plan["last"][number] => ({
    _tag: "Add",
    agent: below(agents),
    facts: many(below(6), () => ({ key: `key ${below(keys)}`, age: age(), poisoned: chance(poison) }))
  })
  // Where no time is set for a write nobody gives up what gets no answer.
  const canBeSilent = options.writeTimeout > 0
  const rule = (): Step => ({
    _tag: "Rule",
    refusesPoison: chance(0.7),
    refusesAll: chance(0.1),
    locked: canBeSilent && chance(0.2) ? { agent: below(agents), key: `key ${below(keys)}` } : undefined,
    maxRows: chance(0.3)
      ? { rows: 1 + below(20), by: canBeSilent && chance(0.5) ? "silence" : "cancel" }
      : undefined
  })
  const step = (): ReadonlyArray<Step> => {
    const kind = below(24)
    if (kind < 8) return [add()]
    if (kind < 10) return many(1 + below(20), add)
    if (kind < 11) return many(10 + below(40), add)
    if (kind < 16) return [{ _tag: "Wait", millis: below(chance(0.2) ? 10 * interval : interval) }]
    if (kind < 17) return [{ _tag: "Flush" }]
    if (kind < 18) return [{ _tag: "Inject", write: [], publish: [] }]
    if (kind < 19) return [{ _tag: "Inject", publish: many(1 + below(3), publishFault) }]
    if (kind < 20) return [rule()]
    if (kind < 21) return chance(0.3) ? [{ _tag: "Forget", agent: below(agents) }] : [add()]
    if (kind < 22 && maxAge > 0) return [{ _tag: "Jump", millis: below(20_000_000) - 10_000_000 }]
    return [
      {
        _tag: "Inject",
        write: many(1 + below(4), () => (chance(0.3) ? { _tag: "Delay", millis: 3 } : writeFault()))
      }
    ]
  }

  return {
    options,
    tells: oneOf("nothing", "names"),
    steps: many(5 + below(20), step).flat(),
    ending: chance(0.3) ? "abrupt" : "graceful",
    last: many(below(20), add)
  }
}
