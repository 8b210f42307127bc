import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { Definition, Message, Row } from "../Batcher.ts"
import { reference } from "./flushSpan.ts"
import type { Ledger } from "./ledger.ts"
import type { Meters } from "./meters.ts"
import * as throttledLog from "./throttledLog.ts"

/** The queue before the accumulator, bounded in records rather than messages. */
export interface Intake<M> {
  readonly queue: Queue.Dequeue<M, Cause.Done>
  readonly offerUnsafe: (message: M) => number
  /** The next message, moved out of `queued`; undefined when there is none. */
  readonly next: () => M | undefined
  /** Logs what was dropped, for as long as it runs. */
  readonly reportDrops: Effect.Effect<never>
  /** Refuses everything from now on; what is queued can still be taken. */
  readonly close: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function* <M extends Message, R extends Row<M>>(options: {
  readonly definition: Definition<M, R>
  readonly capacity: number
  readonly ledger: Ledger
  readonly meters: Meters
  readonly clock: Clock.Clock
}): Effect.fn.Return<Intake<M>> {
  const { capacity, definition, ledger, meters } = options
  const queue = yield* Queue.dropping<M, Cause.Done>(capacity)
  const drops = yield* Queue.sliding<M>(1)
  const dropLog = throttledLog.make(options.clock)
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  let addedAt = 0
  let unreported = 0
  let closed = false
  let toldClosed = false

  const drop = (message: M, count: number): void => {
    ledger.dropped += count
    meters.catchUp()
    if (!closed) {
      unreported += count
      Queue.offerUnsafe(drops, message)
    } else if (!toldClosed) {
      toldClosed = true
      runFork(Effect.logWarning(`${definition.name} is closed: what is added from now on is dropped`))
    }
  }

  const report = (message: M): Effect.Effect<void> => {
    const count = unreported
    unreported = 0
    return dropLog(count, (total) => `queue full: dropped ${total}`, {
      agent: definition.agentOf(message),
      capacity
    })
  }

  return {
    queue,
    offerUnsafe: (message) => {
      const { size } = message
      // Those added in one turn of the event loop share a reading: it costs as much as the rest of an offer.
      if (ledger.queued === 0) addedAt = options.clock.currentTimeMillisUnsafe()
      message.addedAt = addedAt
      message.span = reference(message.span)
      ledger.offered += size
      const room = closed ? 0 : capacity - ledger.queued
      if (size <= room) {
        ledger.queued += size
        if (size > 0) Queue.offerUnsafe(queue, message)
        return size
      }
      drop(message, size - room)
      if (room > 0) {
        ledger.queued += room
        Queue.offerUnsafe(queue, definition.truncate(message, room))
      }
      return room
    },
    next: () => {
      const exit = Queue.takeUnsafe(queue)
      if (exit === undefined || exit._tag === "Failure") return undefined
      ledger.queued -= exit.value.size
      return exit.value
    },
    reportDrops: Effect.forever(Effect.flatMap(Queue.take(drops), report)),
    close: Effect.suspend(() => {
      closed = true
      const dropped = Queue.takeUnsafe(drops)
      return Effect.andThen(
        dropped?._tag === "Success" ? report(dropped.value) : Effect.void,
        Effect.asVoid(Queue.end(queue))
      )
    })
  }
})
