/**
 * Since when the database is away, and since when what watchers see may be
 * stale: kept up to date, and told to every watcher when it changes.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { MetadataBatcher } from "../../MetadataBatcher.ts"
import { MetadataWatcher } from "../../MetadataWatcher.ts"
import type * as Events from "../api/Events.ts"
import * as Engine from "./Engine.ts"
import * as Outbox from "./Outbox.ts"
import { StoreProbe } from "./StoreProbe.ts"
import { type Watcher, Watchers } from "./Watchers.ts"

/**
 * @category services
 * @since 0.1.0
 */
export class State extends Context.Service<
  State,
  {
    readonly current: () => Events.State
    /** Tells one watcher. */
    readonly tell: (watcher: Watcher) => void
  }
>()("effect-metadata-batcher/app/State") {}

const isSame = (a: Events.State, b: Events.State): boolean =>
  a.storeSince === b.storeSince && a.storeError === b.storeError && a.staleSince === b.staleSince

/** Milliseconds between two looks: whoever watches learns of an outage soon enough to say so within seconds. */
const pause = "500 millis"

/**
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<State, never, MetadataBatcher | MetadataWatcher | StoreProbe | Watchers> =
  Layer.effect(
    State,
    Effect.gen(function* () {
      const probe = yield* StoreProbe
      const watcher = yield* MetadataWatcher
      const watchers = yield* Watchers
      const batcher = yield* MetadataBatcher

      const look = Effect.gen(function* () {
        const away = (yield* Engine.trouble(batcher)) ?? probe.away()
        const { staleSince } = yield* watcher.status
        return {
          storeSince: away?.since ?? null,
          storeError: away?.error ?? null,
          staleSince: Option.match(staleSince, {
            onNone: () => null,
            onSome: ({ epochMilliseconds }) => epochMilliseconds
          })
        }
      })

      let state: Events.State = { storeSince: null, storeError: null, staleSince: null }
      let bytes = [Outbox.event("state", state)]

      const update = Effect.map(look, (next) => {
        if (isSame(state, next)) return
        state = next
        bytes = [Outbox.event("state", state)]
        for (const watcher of watchers.of("state")) watcher.outbox.put("state", () => bytes)
      })
      yield* update
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(pause), update)))

      return State.of({
        current: () => state,
        tell: (watcher) => watcher.outbox.put("state", () => bytes)
      })
    })
  )
