import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { Resync, type Signal } from "./signal.ts"

// Bounds what a subscriber that does not read costs: 512 payloads of at most
// 8 kB are 4 MB. A flush publishes a payload or two, so it takes minutes of
// reading nothing to get there.
const backlog = 512

/** Who receives what a channel carries, within this process. */
export interface Subscribers {
  /** Subscribes until the scope closes, which also shuts the queue down. */
  readonly add: (channel: string) => Effect.Effect<Queue.Dequeue<Signal>, never, Scope.Scope>
  /**
   * Hands the signal to every subscriber of the channel, without waiting: a
   * subscriber whose backlog is full has it replaced by one `Resync`, which asks
   * for everything that the backlog and this signal would have told.
   */
  readonly deliverUnsafe: (channel: string, signal: Signal) => void
  /** The channels that have subscribers. */
  readonly channels: () => ReadonlyArray<string>
  readonly has: (channel: string) => boolean
  /** Shuts every queue down. */
  readonly shutdown: Effect.Effect<void>
}

/** Why a subscriber is told to read anew: the connection was lost, or its own backlog was full. */
export type ResyncReason = "reconnect" | "backlog"

export const make = (onResync: (reason: ResyncReason) => void = () => {}): Subscribers => {
  const queues = new Map<string, Set<Queue.Queue<Signal>>>()

  const offerUnsafe = (queue: Queue.Queue<Signal>, signal: Signal): void => {
    if (Queue.offerUnsafe(queue, signal)) {
      if (signal._tag === "Resync") onResync("reconnect")
      return
    }
    for (let count = Queue.sizeUnsafe(queue); count > 0; count--) Queue.takeUnsafe(queue)
    Queue.offerUnsafe(queue, Resync)
    onResync("backlog")
  }

  const remove = (channel: string, queue: Queue.Queue<Signal>): void => {
    const others = queues.get(channel)
    others?.delete(queue)
    if (others?.size === 0) queues.delete(channel)
    Queue.shutdownUnsafe(queue)
  }

  return {
    add: (channel) =>
      Effect.acquireRelease(
        Effect.map(Queue.dropping<Signal>(backlog), (queue) => {
          const others = queues.get(channel) ?? new Set()
          queues.set(channel, others.add(queue))
          return queue
        }),
        (queue) => Effect.sync(() => remove(channel, queue))
      ),
    deliverUnsafe: (channel, signal) => {
      for (const queue of queues.get(channel) ?? []) offerUnsafe(queue, signal)
    },
    channels: () => Array.from(queues.keys()),
    has: (channel) => queues.has(channel),
    shutdown: Effect.sync(() => {
      for (const [channel, subscribed] of queues) {
        for (const queue of subscribed) remove(channel, queue)
      }
    })
  }
}
