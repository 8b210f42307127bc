import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as AgentIdChunks from "../../AgentIdChunks.ts"
import type { Pubsub, PubsubError } from "../../Pubsub.ts"

/** Payloads of one's own that have not come back yet. */
const maxAwaited = 1_000

/**
 * Finds out which agents other replicas write: what this process last wrote of
 * those says nothing any more of what the store holds.
 *
 * A payload of one's own comes back as well. It is known by its text, as often
 * as it was published. One whose publish failed may not come back: whatever
 * comes with its text counts as another's.
 */
export const forgetWhatOthersWrite = (pubsub: Pubsub["Service"], channel: string) => {
  const awaited = new Map<string, number>()

  const publish = (payloads: ReadonlyArray<string>): Effect.Effect<void, PubsubError> => {
    for (const payload of payloads) awaited.set(payload, (awaited.get(payload) ?? 0) + 1)
    for (const payload of awaited.keys()) {
      if (awaited.size <= maxAwaited) break
      awaited.delete(payload)
    }
    return Effect.onError(pubsub.publish(channel, payloads), () => Effect.sync(() => payloads.forEach(isOwn)))
  }

  const isOwn = (payload: string): boolean => {
    const count = awaited.get(payload)
    if (count === undefined) return false
    if (count === 1) awaited.delete(payload)
    else awaited.set(payload, count - 1)
    return true
  }

  const run = (forget: (agentId: string | undefined) => void): Effect.Effect<never> => {
    const forgetAll = () => {
      awaited.clear()
      forget(undefined)
    }
    return Effect.gen(function* () {
      const signals = yield* pubsub.subscribe(channel)
      forgetAll()
      while (true) {
        const signal = yield* Queue.take(signals)
        if (signal._tag === "Resync") forgetAll()
        else if (!isOwn(signal.payload)) {
          const agentIds = AgentIdChunks.decode(signal.payload)
          if (Result.isSuccess(agentIds)) agentIds.success.forEach(forget)
        }
      }
    }).pipe(
      Effect.scoped,
      // Nothing is heard of others while there is no subscription.
      Effect.ensuring(Effect.sync(forgetAll)),
      Effect.retry(Schedule.jittered(Schedule.min([Schedule.exponential(100), Schedule.spaced(10_000)]))),
      Effect.orDie,
      Effect.andThen(Effect.never)
    )
  }

  return { publish, run }
}
