/**
 * The fleet as its watchers see it: a line per agent. It is read once for all
 * watchers, and only while there are any.
 *
 * @since 0.1.0
 */
import { randomUUID } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { AgentId } from "../../AgentId.ts"
import type { AgentMetadata } from "../../Metadata.ts"
import { MetadataWatcher } from "../../MetadataWatcher.ts"
import { Store, type StoreError } from "../../Store.ts"
import type { AgentLine } from "../api/Models.ts"
import { toLine } from "./Agents.ts"
import * as Lines from "./Lines.ts"
import { type Watcher, Watchers } from "./Watchers.ts"

/**
 * @category services
 * @since 0.1.0
 */
export class Overview extends Context.Service<
  Overview,
  {
    /** Returns once the fleet has been read. */
    readonly ready: Effect.Effect<void, StoreError>
    /** Tells one watcher what it does not know yet. */
    readonly tell: (watcher: Watcher, lastEventId: string | undefined) => void
  }
>()("effect-metadata-batcher/app/Overview") {}

const pause = "1 second"

const pageSize = 1_000

/** Of so many changed agents the facts are read; of more, the whole fleet is. */
const maxSingly = 200

/** Milliseconds until everything is read again, should a change have gone unnoticed. */
const refreshAfter = 30_000

/** A full read may take this share of the time at most. */
const maxShare = 0.2

const lineOf = ({ agentId, facts }: AgentMetadata): AgentLine => ({
  id: agentId,
  facts: facts.length,
  errors: facts.filter(({ error }) => error !== "").length,
  lastCollectedAt: facts.reduce((last, { collectedAt }) => Math.max(last, collectedAt.epochMilliseconds), 0)
})

/**
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Overview, never, MetadataWatcher | Store | Watchers> = Layer.effect(
  Overview,
  Effect.gen(function* () {
    const store = yield* Store
    const watchers = yield* Watchers
    const { changes } = yield* MetadataWatcher
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const oneAtATime = yield* Semaphore.make(1)
    const lines = Lines.make(randomUUID().slice(0, 8))

    let isKnown = false
    let readAt = 0
    let readAgainAt = 0
    const changed = new Set<AgentId>()

    const broadcast = (bytes: Uint8Array | undefined) => {
      if (bytes === undefined) return
      for (const { outbox } of watchers.of("overview")) {
        // One that has not taken the last changes yet is better served with the whole.
        if (outbox.has("overview")) outbox.put("overview", lines.snapshot)
        else outbox.put("overview", () => [bytes])
      }
    }

    const readAll = Effect.gen(function* () {
      const begun = now()
      changed.clear()
      const all = new Map<AgentId, AgentLine>()
      let after: AgentId | undefined
      while (true) {
        const page = yield* store.agents({ after, limit: pageSize })
        for (const summary of page) all.set(summary.agentId, toLine(summary))
        after = page.at(-1)?.agentId
        if (page.length < pageSize) break
      }
      isKnown = true
      readAt = now()
      readAgainAt = readAt + (readAt - begun) / maxShare
      broadcast(lines.replaceAll(all))
    })

    const readChanged = Effect.gen(function* () {
      const ids = Array.from(changed)
      changed.clear()
      const found = yield* Effect.tapError(store.metadataOf(ids), () =>
        Effect.sync(() => {
          isKnown = false
        })
      )
      broadcast(lines.replaceSome(ids, found.map(lineOf)))
    })

    const refresh = Effect.suspend((): Effect.Effect<void, StoreError> => {
      const isDue = !isKnown || now() - readAt >= refreshAfter || changed.size > maxSingly
      if (isDue) return now() < readAgainAt ? Effect.void : readAll
      return changed.size === 0 ? Effect.void : readChanged
    })

    const isWatched = () => watchers.of("overview")[Symbol.iterator]().next().done !== true

    yield* changes.pipe(
      Stream.runForEach((change) =>
        Effect.sync(() => {
          if (change._tag === "Resync") isKnown = false
          else if (isKnown && isWatched()) for (const agentId of change.agentIds) changed.add(agentId)
          else isKnown = false
        })
      ),
      Effect.forkScoped
    )
    yield* Effect.suspend(() =>
      isWatched() ? Effect.ignore(oneAtATime.withPermit(refresh)) : Effect.void
    ).pipe(Effect.andThen(Effect.sleep(pause)), Effect.forever, Effect.forkScoped)

    return Overview.of({
      ready: oneAtATime.withPermit(Effect.suspend(() => (isKnown ? Effect.void : readAll))),
      tell: ({ outbox }, lastEventId) => outbox.put("overview", lines.since(lastEventId) ?? lines.snapshot)
    })
  })
)
