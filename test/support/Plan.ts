/**
 * What a simulated batcher goes through: its options, then adds, waits, flushes
 * and faults, and an end. A seed gives the same plan every time.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { Fault, Telling } from "./Faults.ts"

export interface PlannedFact {
  readonly key: string
  /** How much older than now it was collected. */
  readonly age: number
  readonly poisoned: boolean
}

export type Step =
  | { readonly _tag: "Add"; readonly agent: number; readonly facts: ReadonlyArray<PlannedFact> }
  | { readonly _tag: "Wait"; readonly millis: number }
  | { readonly _tag: "Flush" }
  | {
      readonly _tag: "Inject"
      readonly write?: ReadonlyArray<Fault>
      readonly publish?: ReadonlyArray<Fault>
    }

export interface Plan {
  readonly options: {
    readonly maxBatchSize: number
    readonly interval: number
    readonly capacity: number
    readonly maxPending: number
    readonly shutdownTimeout: number
    readonly writeTimeout: number
    readonly writeConcurrency: number
    readonly onWriteFailure: "requeue" | "discard"
  }
  /** What the store tells of the rows it rejects. */
  readonly tells: Telling
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
  const poison = oneOf(0, 0, 0.02, 0.4)
  const options: Plan["options"] = {
    maxBatchSize,
    interval,
    capacity: maxBatchSize * oneOf(1, 2, 5, 20),
    maxPending: oneOf(maxBatchSize, 2 * maxBatchSize, 50_000),
    // Long enough for a few retries, or too short for the next.
    shutdownTimeout: interval * oneOf(1, 5, 20),
    writeTimeout: oneOf(0, interval / 2, 3 * interval),
    writeConcurrency: oneOf(1, 1, 2),
    onWriteFailure: oneOf("requeue", "requeue", "discard")
  }

  // No sum of these is a multiple of 10, as the timeouts are: an answer never comes at the moment it is given up.
  const duration = () => 10 * below(interval / 5) + 3
  const writeFault = (): Fault => {
    const kind = below(10)
    if (kind === 0) return { _tag: "Reject", names: chance(0.5) }
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
      { _tag: "Reject", names: false },
      { _tag: "Die" },
      { _tag: "Throw" },
      { _tag: "Interrupt" },
      { _tag: "Delay", millis: duration() },
      { _tag: "Hang", interruptible: true },
      { _tag: "Hang", interruptible: false }
    )

  const add = (): Plan["last"][number] => ({
    _tag: "Add",
    agent: below(agents),
    facts: many(below(6), () => ({
      key: `key ${below(keys)}`,
      age: maxAge === 0 ? 0 : below(maxAge),
      poisoned: chance(poison)
    }))
  })
  const step = (): ReadonlyArray<Step> => {
    const kind = below(20)
    if (kind < 8) return [add()]
    if (kind < 10) return many(1 + below(40), add)
    if (kind < 15) return [{ _tag: "Wait", millis: below(chance(0.2) ? 10 * interval : interval) }]
    if (kind < 16) return [{ _tag: "Flush" }]
    if (kind < 17) return [{ _tag: "Inject", write: [], publish: [] }]
    if (kind < 18) return [{ _tag: "Inject", publish: many(1 + below(3), publishFault) }]
    return [
      {
        _tag: "Inject",
        write: many(1 + below(4), () => (chance(0.3) ? { _tag: "Delay", millis: 3 } : writeFault()))
      }
    ]
  }

  return {
    options,
    tells: oneOf<Telling>("nothing", "names"),
    steps: many(5 + below(40), step).flat(),
    ending: chance(0.3) ? "abrupt" : "graceful",
    last: many(below(20), add)
  }
}
