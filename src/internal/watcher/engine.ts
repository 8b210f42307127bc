import * as Clock from "effect/Clock"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { AgentId } from "../../AgentId.ts"
import type { Pubsub } from "../../Pubsub.ts"
import type { Store } from "../../Store.ts"
import * as WatcherMetrics from "../../WatcherMetrics.ts"
import { monotonicMillis } from "../monotonicMillis.ts"
import * as throttledLog from "../throttledLog.ts"
import * as Cells from "./cells.ts"
import * as Changes from "./changes.ts"
import type { Change, View, WatcherStatus } from "./definition.ts"
import * as Meters from "./meters.ts"
import type { Resolved } from "./options.ts"
import * as Rounds from "./rounds.ts"
import * as Subscription from "./subscription.ts"
import * as Trouble from "./trouble.ts"
import * as Views from "./view.ts"

/** A watcher at work. */
export interface Engine {
  readonly watch: (agentId: AgentId, keys: ReadonlyArray<string> | undefined) => Stream.Stream<View>
  readonly changes: Stream.Stream<Change>
  readonly status: Effect.Effect<WatcherStatus>
}

const troubles = {
  reading: {
    begins: "cannot read what is watched; showing what was read before, until the store is back",
    goesOn: "still cannot read what is watched",
    ends: "what is watched can be read again"
  },
  subscribing: {
    begins: "cannot subscribe to changes; reading every refreshInterval until the pubsub can be reached",
    goesOn: "still cannot subscribe to changes",
    ends: "subscribed to changes"
  }
}

/** Runs until the scope closes, which ends every stream. */
export const make = Effect.fnUntraced(function* (
  options: Resolved,
  store: Store["Service"],
  pubsub: Pubsub["Service"]
): Effect.fn.Return<Engine, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const cells = Cells.make({
    refreshInterval: options.refreshInterval,
    now: () => monotonicMillis(clock)
  })
  const changes = Changes.make()
  let closed = false

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      for (const { watchers } of cells.all()) for (const mailbox of watchers) mailbox.end()
      changes.end()
    })
  )

  const unreadable = throttledLog.make(clock)
  const subscription = Subscription.make({
    pubsub,
    channel: options.channel,
    trouble: Trouble.make(clock, troubles.subscribing),
    isWanted: () => cells.size() + changes.size() > 0,
    onAnnounced: (agentIds) => {
      rounds.announced(agentIds)
      changes.changed(agentIds)
    },
    onResync: () => {
      if (cells.size() + changes.size() === 0) return
      meters.resync()
      cells.markAllDue()
      changes.resync()
      rounds.wake()
    },
    warnOfPayload: unreadable(
      1,
      (count) => `${count} announcements that cannot be read; reading everything watched instead`,
      { channel: options.channel }
    )
  })

  const secondsSince = (since: DateTime.Utc | undefined) =>
    since === undefined ? 0 : Math.max(0, clock.currentTimeMillisUnsafe() - since.epochMilliseconds) / 1000
  const meters = yield* Meters.make(WatcherMetrics.make({ prefix: options.metricsPrefix }), {
    watchers: cells.watchers,
    agents: cells.size,
    subscribed: () => (subscription.stands() ? 1 : 0),
    stale: () => secondsSince(cells.staleSince())
  })

  const rounds = Rounds.make({
    store,
    cells,
    clock,
    options,
    meters,
    trouble: Trouble.make(clock, troubles.reading)
  })

  yield* Effect.forkScoped(subscription.run, { startImmediately: true })
  yield* Effect.forkScoped(rounds.run, { startImmediately: true })

  return {
    watch: (agentId, keys) =>
      Views.watch({
        cells,
        agentId,
        keys,
        onJoin: (cell, mailbox) => {
          const since = rounds.failingSince()
          if (cell.view === undefined && since !== undefined) cells.markStale(cell, since)
          if (closed) mailbox.end()
          rounds.wake()
        }
      }),
    changes: changes.stream,
    status: Effect.sync(() => ({
      watchers: cells.watchers(),
      agents: cells.size(),
      subscribed: subscription.stands(),
      staleSince: Option.fromUndefinedOr(cells.staleSince())
    }))
  }
})
