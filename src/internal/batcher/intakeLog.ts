import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as throttledLog from "../throttledLog.ts"
import { printable } from "./failure.ts"
import type { IntakeEvents } from "./intake.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"
import * as Signal from "./signal.ts"

/** Warns of what was not taken as it came. Whoever adds only counts: a fiber writes the lines. */
export interface IntakeLog {
  readonly events: IntakeEvents
  /** Writes what there is to say, for as long as it runs. */
  readonly run: Effect.Effect<never>
  /** Writes what is left to say. */
  readonly last: Effect.Effect<void>
}

interface Unsaid {
  count: number
  group: unknown
}

export const make = Effect.fnUntraced(function* (environment: {
  readonly name: string
  readonly clock: Clock.Clock
  readonly meters: Meters
  readonly options: Resolved
}): Effect.fn.Return<IntakeLog> {
  const { clock, meters, name, options } = environment
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const log = throttledLog.make(clock)
  const datedLog = throttledLog.make(clock)
  const some = yield* Signal.make
  const unsaid = new Map<string, Unsaid>()
  let hasToldClosed = false

  const note = (why: string, count: number, group: unknown): void => {
    const already = unsaid.get(why)
    if (already === undefined) unsaid.set(why, { count, group })
    else {
      already.count += count
      already.group = group
    }
    some.raiseUnsafe()
  }

  const line = (why: string, { count, group }: Unsaid): Effect.Effect<void> => {
    const agent = printable(group)
    if (why === "dated") {
      const message = (total: number) =>
        `${total} records were dated more than maxAhead ahead of the clock: they count as collected when added`
      return datedLog(count, message, { agent, maxAheadMillis: options.maxAhead })
    }
    const message = (total: number) => `dropped ${total}: ${why}`
    const { maxPending, maxPendingBytes } = options
    return log(count, message, { agent, maxPending, maxPendingBytes })
  }

  const say = Effect.suspend(() => {
    const lines = Array.from(unsaid, ([why, what]) => line(why, what))
    unsaid.clear()
    return Effect.all(lines, { discard: true })
  })

  return {
    events: {
      dropped: (count, why, group) => {
        meters.catchUp()
        if (why !== "closed") {
          note(why, count, group)
        } else if (!hasToldClosed) {
          hasToldClosed = true
          runFork(Effect.logWarning(`${name} is closed: what is added from now on is dropped`))
        }
      },
      dated: (count, group) => {
        meters.dated(count)
        note("dated", count, group)
      }
    },
    run: Effect.forever(Effect.andThen(some.wait, say)),
    last: say
  }
})
