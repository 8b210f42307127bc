import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"

/**
 * Tells a fiber that there is something to do. The fiber runs in a turn of its
 * own and never on the stack of whoever tells it: adding a record must not write
 * a batch, nor a log line.
 */
export interface Signal {
  /** Costs a comparison while the fiber has not run since the last call. */
  readonly raiseUnsafe: () => void
  /** Waits for a call since the last time it returned. */
  readonly wait: Effect.Effect<void>
}

export const make: Effect.Effect<Signal> = Effect.map(Queue.dropping<void>(1), (queue) => {
  let isRaised = false
  return {
    raiseUnsafe: () => {
      if (isRaised) return
      isRaised = true
      Queue.offerUnsafe(queue, undefined)
    },
    wait: Effect.map(Queue.take(queue), () => {
      isRaised = false
    })
  }
})
