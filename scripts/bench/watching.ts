/**
 * The ways to watch that are raced: one watcher for all, and what is written
 * first, a subscription and a SELECT for each.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import type { Metadata } from "../../src/Metadata.ts"
import { metadataBatchChannel } from "../../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../../src/MetadataWatcher.ts"
import { Pubsub } from "../../src/Pubsub.ts"
import { Store } from "../../src/Store.ts"

/** Watches until the scope closes, and hands over what is shown. */
export type Watch = (
  agentId: AgentId,
  onShown: (facts: ReadonlyArray<Metadata>) => void
) => Effect.Effect<void, unknown, Scope.Scope>

export const shared = Effect.map(
  MetadataWatcher.make(),
  (watcher): Watch =>
    (agentId, onShown) =>
      Effect.asVoid(
        Effect.forkScoped(
          Stream.runForEach(watcher.watch(agentId), ({ facts }) => Effect.sync(() => onShown(facts)))
        )
      )
)

export const naive = Effect.gen(function* () {
  const pubsub = yield* Pubsub
  const store = yield* Store
  const watch: Watch = Effect.fnUntraced(function* (agentId, onShown) {
    const signals = yield* pubsub.subscribe(metadataBatchChannel)
    const read = Effect.map(store.metadataOf([agentId]), ([agent]) => onShown(agent?.facts ?? []))
    yield* read
    yield* Queue.take(signals).pipe(
      Effect.flatMap((signal) => {
        if (signal._tag === "Resync") return read
        const changed = Result.getOrThrow(AgentIdChunks.decode(signal.payload))
        return changed.includes(agentId) ? read : Effect.void
      }),
      Effect.forever,
      Effect.forkScoped
    )
  })
  return watch
})
