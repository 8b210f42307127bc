/**
 * The demo's observer: a subscriber on a connection of its own that sees which
 * agents changed, and the times in between that tell how long a fact took.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { AgentId } from "../AgentId.ts"
import * as AgentIdChunks from "../AgentIdChunks.ts"
import type { MetadataBatch } from "../Metadata.ts"
import { metadataBatchChannel } from "../MetadataBatcher.ts"
import { Pubsub, type PubsubError } from "../Pubsub.ts"
import { Store, type StoreError } from "../Store.ts"

/**
 * What was seen so far.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sightings {
  readonly notifications: number
  /** Whether the last write succeeded. */
  readonly isUp: boolean
  /** Milliseconds from `add` to the notification, of the last five seconds, in ascending order. */
  readonly latencies: ReadonlyArray<number>
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Watch {
  /** A store that lets the watch see what is written through it. */
  readonly observe: (store: Store["Service"]) => Store["Service"]
  readonly sightings: Effect.Effect<Sightings>
}

const windowMillis = 5_000

/**
 * Subscribes, and counts until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<Watch, PubsubError, Pubsub | Scope.Scope> = Effect.gen(function* () {
  const pubsub = yield* Pubsub
  const clock = yield* Clock.Clock
  // When the oldest fact that is written and not yet announced was added, per
  // agent. Without it, a notification on its way would count for a fact that
  // came after it was sent.
  const written = new Map<AgentId, number>()
  let latencies: Array<{ readonly seenAt: number; readonly millis: number }> = []
  let notifications = 0
  let isUp = true

  const recordWritten = ({ agentIds, collectedAt }: MetadataBatch) =>
    agentIds.forEach((agentId, row) => {
      if (!written.has(agentId)) written.set(agentId, collectedAt[row] ?? 0)
    })

  const recordSeen = (agentIds: ReadonlyArray<AgentId>) => {
    const seenAt = clock.currentTimeMillisUnsafe()
    for (const agentId of agentIds) {
      const addedAt = written.get(agentId)
      if (addedAt === undefined) continue
      written.delete(agentId)
      latencies.push({ seenAt, millis: seenAt - addedAt })
    }
  }

  const observeWrite = <A>(write: Effect.Effect<A, StoreError>) =>
    write.pipe(
      Effect.tap(() => Effect.sync(() => (isUp = true))),
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error.reason._tag === "Unavailable") isUp = false
        })
      )
    )

  const signals = yield* pubsub.subscribe(metadataBatchChannel)
  yield* Queue.take(signals).pipe(
    Effect.flatMap((signal) => {
      // After a resync a reader would read anew; this one only counts.
      if (signal._tag === "Resync") return Effect.sync(() => written.clear())
      notifications += 1
      return Result.match(AgentIdChunks.decode(signal.payload), {
        onSuccess: (agentIds) => Effect.sync(() => recordSeen(agentIds)),
        onFailure: (error) => Effect.logWarning("a notification that cannot be read", error)
      })
    }),
    Effect.forever,
    Effect.forkScoped
  )

  return {
    observe: (store) =>
      Store.of({
        ...store,
        batchUpdateMetadata: (batch) =>
          Effect.tap(observeWrite(store.batchUpdateMetadata(batch)), () =>
            Effect.sync(() => recordWritten(batch))
          ),
        batchInsertStats: (rows) => observeWrite(store.batchInsertStats(rows))
      }),
    sightings: Effect.sync(() => {
      const since = clock.currentTimeMillisUnsafe() - windowMillis
      latencies = latencies.filter(({ seenAt }) => seenAt >= since)
      const ascending = latencies.map(({ millis }) => millis).sort((a, b) => a - b)
      return { notifications, isUp, latencies: ascending }
    })
  }
})
