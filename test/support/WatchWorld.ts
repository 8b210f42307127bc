/**
 * What a watcher watches, with the bad days a test gives it: a memory store
 * whose reads are logged and may fail, and a memory pubsub that loses what it is
 * told to lose. Every state that an agent was ever in is kept, so that what was
 * shown can be compared with it.
 */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import type { Metadata } from "../../src/Metadata.ts"
import { metadataBatchChannel } from "../../src/MetadataBatcher.ts"
import type { View } from "../../src/MetadataWatcher.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as Store from "../../src/Store.ts"

/** What happens to one read. Without a fault it is answered at once. */
export type ReadFault =
  /** Reads at once or in the end, and answers then. */
  | { readonly _tag: "Delay"; readonly millis: number; readonly reads: "first" | "last" }
  | {
      readonly _tag: "Fail"
      readonly reason: "Unavailable" | "Canceled" | "Rejected"
      readonly millis: number
    }
  | { readonly _tag: "Die" | "Throw" | "Interrupt" | "Garbage" }
  /** No answer, ever. */
  | { readonly _tag: "Hang"; readonly interruptible: boolean }

/** The worst that can be thrown: it cannot even be made a text. */
const textless = (): unknown => Object.create(null)

export interface Read {
  readonly agentIds: ReadonlyArray<AgentId>
  readonly at: number
  endedAt: number | undefined
}

/** Facts as a text that is equal if they are. */
export const show = (facts: ReadonlyArray<Metadata>, keys?: ReadonlyArray<string> | undefined): string =>
  facts
    .filter(({ key }) => keys === undefined || keys.includes(key))
    .map(({ collectedAt, error, key, value }) => `${key}=${value}${error}@${collectedAt.epochMilliseconds}`)
    .sort()
    .join(" ")

export const make = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const memory = yield* Store.makeMemory
  const channel = yield* Pubsub.makeMemory
  const reads: Array<Read> = []
  const states = new Map<AgentId, Array<ReadonlyArray<Metadata>>>()
  const queues = new Set<Queue.Dequeue<Pubsub.Signal>>()
  let readFaults: ReadonlyArray<ReadFault> = []
  let position = 0
  let subscribeFails = false
  let subscriptions = 0

  const nextFault = () => (readFaults.length === 0 ? undefined : readFaults[position++ % readFaults.length])

  const suffer = (
    fault: ReadFault | undefined,
    read: ReturnType<Store.Store["Service"]["metadataOf"]>
  ): ReturnType<Store.Store["Service"]["metadataOf"]> => {
    switch (fault?._tag) {
      case undefined:
        return read
      case "Delay":
        return fault.reads === "last"
          ? Effect.delay(read, fault.millis)
          : Effect.tap(read, () => Effect.sleep(fault.millis))
      case "Fail": {
        const { rejected, canceled, unavailable } = Store
        const failure = { Unavailable: unavailable, Canceled: canceled, Rejected: rejected }[fault.reason]
        return Effect.delay(Effect.fail(failure(new Error("down"))), fault.millis)
      }
      case "Die":
        return Effect.die(new Error("a defect"))
      case "Throw":
        throw textless()
      case "Interrupt":
        return Effect.interrupt
      case "Garbage":
        return Effect.succeed("garbage" as never)
      case "Hang":
        return fault.interruptible ? Effect.never : Effect.uninterruptible(Effect.never)
    }
  }

  const keep = (agentId: AgentId) =>
    Effect.map(memory.store.metadataOf([agentId]), ([agent]) => {
      const known = states.get(agentId) ?? [[]]
      states.set(agentId, known)
      known.push(agent?.facts ?? [])
    })

  const announce = (agentIds: ReadonlyArray<AgentId>) =>
    channel.pubsub.publish(metadataBatchChannel, AgentIdChunks.encode(agentIds))

  return {
    store: Store.Store.of({
      ...memory.store,
      metadataOf: (agentIds, options) => {
        const read: Read = { agentIds, at: clock.currentTimeMillisUnsafe(), endedAt: undefined }
        reads.push(read)
        return Effect.ensuring(
          suffer(nextFault(), memory.store.metadataOf(agentIds, options)),
          Effect.sync(() => {
            read.endedAt = clock.currentTimeMillisUnsafe()
          })
        )
      }
    }),
    pubsub: Pubsub.Pubsub.of({
      ...channel.pubsub,
      subscribe: (name) =>
        Effect.suspend(() => {
          subscriptions += 1
          if (subscribeFails && subscriptions % 2 === 0) throw textless()
          if (subscribeFails) return Effect.fail(Pubsub.unavailable(new Error("no such host")))
          return Effect.tap(channel.pubsub.subscribe(name), (queue) =>
            Effect.acquireRelease(
              Effect.sync(() => queues.add(queue)),
              () => Effect.sync(() => queues.delete(queue))
            )
          )
        })
    }),
    reads,
    /** Times that `subscribe` was called, and subscriptions that stand. */
    subscriptions: () => subscriptions,
    standing: () => queues.size,
    inject: (faults: ReadonlyArray<ReadFault>) => {
      readFaults = faults
      position = 0
    },
    failSubscribe: (fails: boolean) => {
      subscribeFails = fails
    },
    /** Ends every subscription without a word, as a pubsub that is closed does. */
    cut: Effect.suspend(() =>
      Effect.forEach(Array.from(queues), (queue) => Queue.shutdown(queue as Queue.Queue<Pubsub.Signal>), {
        discard: true
      })
    ),
    resync: channel.resync,
    announce,
    publish: (payload: string, name = metadataBatchChannel) => channel.pubsub.publish(name, [payload]),
    /** Writes facts and, unless told not to, announces it. */
    write: Effect.fnUntraced(function* (
      agentId: AgentId,
      facts: ReadonlyArray<Metadata>,
      options?: { readonly announced: boolean }
    ) {
      yield* memory.store.batchUpdateMetadata({
        agentIds: facts.map(() => agentId),
        keys: facts.map(({ key }) => key),
        values: facts.map(({ value }) => value),
        errors: facts.map(({ error }) => error),
        collectedAt: facts.map(({ collectedAt }) => collectedAt.epochMilliseconds)
      })
      yield* keep(agentId)
      if (options?.announced !== false) yield* announce([agentId])
    }),
    remove: Effect.fnUntraced(function* (agentId: AgentId) {
      yield* memory.store.deleteAgents([agentId])
      yield* keep(agentId)
    }),
    /** What the store holds now. */
    held: (agentId: AgentId) =>
      Effect.map(memory.store.metadataOf([agentId]), ([agent]) => agent?.facts ?? []),
    /** Fails unless the views show states that the agent was in, in their order; `views` may pass over some. */
    assertForwards: (
      agentId: AgentId,
      views: ReadonlyArray<View>,
      keys: ReadonlyArray<string> | undefined
    ) => {
      const known = (states.get(agentId) ?? [[]]).map((facts) => show(facts, keys))
      let from = 0
      for (const [i, view] of views.entries()) {
        // What could not be read yet shows as nothing.
        const isUnread = i === 0 && view.staleSince !== undefined && view.facts.length === 0
        if (isUnread) continue
        const at = known.indexOf(show(view.facts), from)
        assert.isAtLeast(
          at,
          0,
          `${agentId} went back in time: ${JSON.stringify(views.map((v) => show(v.facts)))}`
        )
        from = at
      }
    }
  }
})

export type World = Effect.Success<typeof make>
