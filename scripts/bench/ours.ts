/**
 * The batcher itself, with every default but the workload's interval: real
 * layers, metrics on, default logging. Only the database is the bench's.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import type * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import type * as Pubsub from "../../src/Pubsub.ts"
import type * as Store from "../../src/Store.ts"
import { type Contestant, fromAdapter, type Sink, toEffect } from "./contestant.ts"
import { type Library, load } from "./library.ts"
import { type Report, reportAt, stride, type Workload, w1 } from "./workload.ts"

type Service = MetadataBatcher.MetadataBatcher["Service"]

/** No bound in bytes, where a bench has more keys wait than an application would. */
export const noByteBound = { maxPendingBytes: 2 ** 40 }

/** Nothing waits in the queue, and the store keeps up: the next stride is work, not a pile. */
export const hasRoom = (batcher: Pick<Service, "accounting">) =>
  Effect.map(
    batcher.accounting,
    ({ inFlight, pending, queued }) => queued === 0 && pending + inFlight <= 2 * w1.batchSize
  )

/** Writes the rest and sees that every fact is accounted for. */
export const drain = Effect.fnUntraced(function* (batcher: Service) {
  yield* batcher.flush
  const { discarded, dropped, offered, superseded, written } = yield* batcher.accounting
  if (dropped + discarded > 0 || written + superseded !== offered) {
    return yield* Effect.die(new Error(`${offered} facts offered, ${written} written, ${dropped} dropped`))
  }
})

/** Adds `count` reports as `addNth` does, never more than there is room for, and writes the rest. */
export const produceWith = Effect.fnUntraced(function* (
  batcher: Service,
  count: number,
  addNth: (i: number) => Effect.Effect<void>
) {
  for (let i = 1; i <= count; i++) {
    yield* addNth(i - 1)
    if (i % stride === 0) {
      do yield* Effect.yieldNow
      while (!(yield* hasRoom(batcher)))
    }
  }
  yield* drain(batcher)
})

/** A store whose every write goes to the sink and changes every row. */
const makeStore = (sink: Sink) => ({
  batchUpdateMetadata: (batch: Parameters<Sink>[0]) =>
    Effect.suspend(() =>
      Effect.as(toEffect(sink(batch)), {
        changed: batch.keys.length,
        superseded: [],
        missing: [],
        refused: []
      })
    ),
  batchInsertStats: (rows: ReadonlyArray<unknown>) =>
    Effect.succeed({ changed: rows.length, superseded: [], missing: [], refused: [] }),
  metadataOf: () => Effect.succeed([]),
  agents: () => Effect.succeed([]),
  deleteAgents: () => Effect.succeed(0)
})

/** What the bench does with a batcher, whichever revision's. */
export const using = ({ MetadataBatcher, Pubsub, Store }: Library) => {
  const layerStore = (sink: Sink) => Layer.succeed(Store.Store, makeStore(sink))

  const layerPubsub = Layer.succeed(
    Pubsub.Pubsub,
    Pubsub.Pubsub.of({ publish: () => Effect.void, subscribe: () => Effect.never })
  )

  /** Runs a batcher on these layers until `close`. */
  const openWith = async <E>(
    layer: Layer.Layer<Store.Store | Pubsub.Pubsub, E>,
    options?: MetadataBatcher.Options
  ) => {
    const runtime = ManagedRuntime.make(Layer.provide(MetadataBatcher.layer(options), layer))
    const batcher = await runtime.runPromise(
      Effect.gen(function* () {
        return yield* MetadataBatcher.MetadataBatcher
      })
    )
    return {
      batcher,
      /** Whether all that was added has been taken from the queue. */
      isDrained: () => Effect.runSync(batcher.accounting).queued === 0,
      close: () => runtime.dispose()
    }
  }

  /** Runs a batcher that writes to this sink. */
  const open = (workload: Workload, sink: Sink, options?: MetadataBatcher.Options) =>
    openWith(Layer.merge(layerStore(sink), layerPubsub), {
      interval: workload.interval,
      maxBatchSize: workload.batchSize,
      ...options
    })

  const addUnsafe: Contestant = {
    name: "addUnsafe",
    label: "effect-metadata-batcher, addUnsafe",
    bounded: true,
    deduped: "in the buffer",
    timed: "yes",
    open: async (workload, sink) => {
      const { batcher, close } = await open(workload, sink)
      return fromAdapter({
        add: ({ agentId, facts }) => {
          if (batcher.addUnsafe(agentId, facts) !== facts.length) throw new Error("facts were dropped")
        },
        hasRoom: () => Effect.runSync(hasRoom(batcher)),
        drain: () => Effect.runPromise(drain(batcher)),
        close
      })
    }
  }

  const add: Contestant = {
    ...addUnsafe,
    name: "add",
    label: "effect-metadata-batcher, yield* add",
    open: async (workload, sink) => {
      const { batcher, close } = await open(workload, sink)
      const add = ({ agentId, facts }: Report) => batcher.add(agentId, facts)
      return {
        produce: (reports, count) =>
          Effect.runPromise(produceWith(batcher, count, (i) => add(reportAt(reports, i)))),
        close
      }
    }
  }

  return { add, addUnsafe, layerPubsub, layerStore, open, openWith }
}

export const workingTree = using(await load())
