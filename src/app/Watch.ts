/**
 * The demo's observer: it watches some of the agents, as a user interface does,
 * and tells how long a fact took from `add` to being shown.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AgentId } from "../AgentId.ts"
import { MetadataWatcher, type View } from "../MetadataWatcher.ts"
import { Store, type StoreError } from "../Store.ts"

/**
 * What was seen so far.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sightings {
  /** Times that changes were announced; those that wait for each other count as one. */
  readonly notifications: number
  /** Whether the last write succeeded. */
  readonly isUp: boolean
  /** Milliseconds from `add` to being shown, of the last five seconds, in ascending order. */
  readonly latencies: ReadonlyArray<number>
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Watch {
  /** A store that lets the watch see whether writes succeed. */
  readonly observe: (store: Store["Service"]) => Store["Service"]
  readonly sightings: Effect.Effect<Sightings>
}

const windowMillis = 5_000

/** Enough for a latency, and no load of its own next to thousands of agents. */
const maxWatched = 100

/**
 * Watches until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  agentIds: ReadonlyArray<AgentId>
): Effect.fn.Return<Watch, never, MetadataWatcher | Scope.Scope> {
  const watcher = yield* MetadataWatcher
  const clock = yield* Clock.Clock
  const start = clock.currentTimeMillisUnsafe()
  let latencies: Array<{ readonly seenAt: number; readonly millis: number }> = []
  let notifications = 0
  let isUp = true

  const look = (agentId: AgentId): Effect.Effect<void> => {
    // What an earlier run left behind is not new.
    let newest = start - 1
    const recordSeen = ({ facts }: View) =>
      Effect.sync(() => {
        const added = facts.map((fact) => fact.collectedAt.epochMilliseconds).filter((at) => at > newest)
        if (added.length === 0) return
        newest = Math.max(...added)
        const seenAt = clock.currentTimeMillisUnsafe()
        latencies.push({ seenAt, millis: seenAt - Math.min(...added) })
      })
    return Stream.runForEach(watcher.watch(agentId), recordSeen)
  }
  yield* Effect.forEach(agentIds.slice(0, maxWatched), (agentId) => Effect.forkScoped(look(agentId)))

  const count = (tag: string) => Effect.sync(() => (notifications += tag === "Changed" ? 1 : 0))
  yield* Effect.forkScoped(Stream.runForEach(watcher.changes, ({ _tag }) => count(_tag)))

  const observeWrite = <A>(write: Effect.Effect<A, StoreError>) =>
    write.pipe(
      Effect.tap(() => Effect.sync(() => (isUp = true))),
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error.reason._tag === "Unavailable") isUp = false
        })
      )
    )

  return {
    observe: (store) =>
      Store.of({
        ...store,
        batchUpdateMetadata: (batch) => observeWrite(store.batchUpdateMetadata(batch)),
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
