/**
 * A `Store` and a `Pubsub` that have the bad days a test gives them, and that
 * keep the log by which the batcher is judged.
 *
 * Faults are given as a list that calls go through in order and over again; an
 * empty list is a good day. Beside that, a row whose value is `poison(…)` is
 * refused for ever, as PostgreSQL refuses a row that breaks a constraint.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import type { MetadataBatch } from "../../src/Metadata.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import * as Store from "../../src/Store.ts"
import { unusedStore } from "./Fakes.ts"

/** What happens to one call. Without a fault it succeeds at once. */
export type Fault =
  | { readonly _tag: "Delay"; readonly millis: number }
  | { readonly _tag: "Fail"; readonly reason: "Unavailable" | "Canceled"; readonly millis: number }
  /** Refuses the batch whatever is in it, and blames the first row if it `names` one. */
  | { readonly _tag: "Reject"; readonly names: boolean }
  | { readonly _tag: "Die" | "Throw" | "Interrupt" }
  /** No answer, ever. */
  | { readonly _tag: "Hang"; readonly interruptible: boolean }
  /** Takes its time, does its work and answers, whoever has stopped waiting. */
  | { readonly _tag: "Late"; readonly millis: number }
  /** Does its work, and the connection is lost before the answer. */
  | { readonly _tag: "AnswerLost" }

export interface Row {
  readonly agentId: AgentId
  readonly key: string
  readonly value: string
  readonly collectedAt: number
}

export const identify = (row: { readonly agentId: AgentId; readonly key: string }): string =>
  `${row.agentId} ${row.key}`

export const poison = (value: string): string => `poison ${value}`

export const isPoison = (value: string): boolean => value.startsWith("poison ")

/** What a store tells of the rows it refuses: nothing, and nothing is written; or which, and the others are written. */
export type Telling = "nothing" | "names"

/** One call of the store, and how it went. */
export interface Call {
  readonly rows: ReadonlyArray<Row>
  readonly startedAt: number
  outcome: "running" | "acknowledged" | "failed" | "rejected"
  endedAt: number | undefined
  /** The rows that the store said are written. */
  written: ReadonlyArray<Row>
  /** The rows that the store blamed: those it named, or the only one there was. */
  blamed: ReadonlyArray<Row>
}

/** A store and a pubsub under the same clock, and what they saw. */
export interface Faults {
  readonly store: Store.Store["Service"]
  readonly pubsub: Pubsub.Pubsub["Service"]
  /** What happens to the calls from now on. */
  readonly inject: (faults: {
    readonly write?: ReadonlyArray<Fault>
    readonly publish?: ReadonlyArray<Fault>
  }) => void
  readonly calls: ReadonlyArray<Call>
  /** Every row that was written, in the order it was, stale ones included. */
  readonly applied: ReadonlyArray<Row>
  /** What a reader finds: the newest row per agent and key. */
  readonly held: ReadonlyMap<string, Row>
  /** The agents of every publish that was asked for, with its time. */
  readonly published: ReadonlyArray<{ readonly agents: ReadonlyArray<AgentId>; readonly at: number }>
  /** What no batcher may do, as it was seen. */
  readonly violations: ReadonlyArray<string>
}

export const make = Effect.fnUntraced(function* (options?: {
  /** What the store tells of poisoned rows. Default "nothing". */
  readonly tells?: Telling
  readonly maxBatchSize?: number
  readonly writeConcurrency?: number
  /** The batcher's: a call older than this has been given up. */
  readonly writeTimeout?: number
}): Effect.fn.Return<Faults> {
  const { maxBatchSize = 500, tells = "nothing", writeConcurrency = 1, writeTimeout = 30_000 } = options ?? {}
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const nextWriteFault = playlist()
  const nextPublishFault = playlist()
  const calls: Array<Call> = []
  const underWay = new Set<Call>()
  const applied: Array<Row> = []
  const held = new Map<string, Row>()
  const published: Array<{ readonly agents: ReadonlyArray<AgentId>; readonly at: number }> = []
  const violations: Array<string> = []
  // By agent: statements that wrote something of it, less the notifications of it.
  const unannounced = new Map<AgentId, number>()

  // Jittered delays give times with a fraction, so that the sum of two is not always exact.
  const isGivenUp = (call: Call) => writeTimeout > 0 && now() - call.startedAt > writeTimeout - 0.01

  const begin = (batch: MetadataBatch): Call => {
    const rows = rowsOf(batch)
    for (const call of underWay) if (call.outcome !== "running" || isGivenUp(call)) underWay.delete(call)
    if (underWay.size >= writeConcurrency) violations.push(`more than ${writeConcurrency} writes at ${now()}`)
    if (rows.length === 0 || rows.length > maxBatchSize) violations.push(`a batch of ${rows.length} rows`)
    if (new Set(rows.map(identify)).size < rows.length) violations.push("a key twice in one batch")
    const columns = [batch.keys, batch.values, batch.errors, batch.collectedAt]
    if (columns.some((column) => column.length !== rows.length)) violations.push("columns of unequal length")
    const call: Call = {
      rows,
      startedAt: now(),
      outcome: "running",
      endedAt: undefined,
      written: [],
      blamed: []
    }
    calls.push(call)
    underWay.add(call)
    return call
  }

  const reject = (
    call: Call,
    blamed: ReadonlyArray<Row>,
    telling: Telling
  ): Effect.Effect<Store.WriteResult, Store.StoreError> => {
    const names = telling === "names"
    if (!isGivenUp(call)) call.blamed = names ? blamed : call.rows.length === 1 ? call.rows : []
    const why = "constraint violated"
    if (!names) return Effect.fail(Store.rejected(new Error(why)))
    put(call.rows.filter((row) => !blamed.includes(row)))
    return Effect.succeed({
      ...Store.allChanged(call.rows.length - blamed.length),
      refused: blamed.map((row) => ({ position: call.rows.indexOf(row), why }))
    })
  }

  const put = (rows: ReadonlyArray<Row>) => {
    for (const row of rows) {
      applied.push(row)
      const before = held.get(identify(row))
      if (before === undefined || before.collectedAt <= row.collectedAt) held.set(identify(row), row)
    }
    for (const agentId of new Set(rows.map((row) => row.agentId))) {
      unannounced.set(agentId, (unannounced.get(agentId) ?? 0) + 1)
    }
  }

  const apply = (call: Call): Effect.Effect<Store.WriteResult, Store.StoreError> =>
    Effect.suspend(() => {
      const poisoned = call.rows.filter((row) => isPoison(row.value))
      if (poisoned.length > 0) return reject(call, poisoned, tells)
      put(call.rows)
      return Effect.succeed(Store.allChanged(call.rows.length))
    })

  const write = (batch: MetadataBatch): Effect.Effect<Store.WriteResult, Store.StoreError> => {
    const call = begin(batch)
    const end = (outcome: Call["outcome"]) =>
      Effect.sync(() => {
        call.endedAt = now()
        call.outcome = outcome === "acknowledged" && isGivenUp(call) ? "failed" : outcome
        if (call.outcome === "acknowledged")
          call.written = call.rows.filter((row) => !call.blamed.includes(row))
      })
    const fault = nextWriteFault.next()
    if (fault?._tag === "Throw") {
      call.outcome = "failed"
      throw new Error("the store threw")
    }
    return suffer(fault, apply(call), {
      unavailable: Store.unavailable,
      canceled: Store.canceled,
      reject: (names) => reject(call, call.rows.slice(0, 1), names ? "names" : "nothing")
    }).pipe(
      Effect.tap(end("acknowledged")),
      Effect.tapError((error) => end(error.reason._tag === "Rejected" ? "rejected" : "failed")),
      Effect.tapDefect(() => end("failed")),
      Effect.onInterrupt(() => end("failed"))
    )
  }

  const publish = (payloads: ReadonlyArray<string>): Effect.Effect<void, Pubsub.PubsubError> => {
    const agents = payloads.flatMap((payload) => Result.getOrThrow(AgentIdChunks.decode(payload)))
    if (new Set(agents).size < agents.length) violations.push("an agent twice in one publish")
    published.push({ agents, at: now() })
    for (const agentId of agents) {
      const count = unannounced.get(agentId) ?? 0
      if (count === 0) violations.push(`published before its rows were written: ${agentId}`)
      unannounced.set(agentId, count - 1)
    }
    const fault = nextPublishFault.next()
    if (fault?._tag === "Throw") throw new Error("the pubsub threw")
    const unavailable = (cause: unknown) =>
      new Pubsub.PubsubError({ reason: new Pubsub.Unavailable({ cause }) })
    return suffer(fault, Effect.void, {
      unavailable,
      canceled: unavailable,
      reject: () =>
        Effect.fail(
          new Pubsub.PubsubError({ reason: new Pubsub.Invalid({ cause: new Error("payload refused") }) })
        )
    })
  }

  return {
    store: Store.Store.of({ ...unusedStore, batchUpdateMetadata: write }),
    pubsub: Pubsub.Pubsub.of({
      publish: (_, payloads) => publish(payloads),
      subscribe: () => Effect.die(new Error("not used by a batcher"))
    }),
    inject: (faults) => {
      if (faults.write !== undefined) nextWriteFault.play(faults.write)
      if (faults.publish !== undefined) nextPublishFault.play(faults.publish)
    },
    calls,
    applied,
    held,
    published,
    violations
  }
})

/** Gives out the faults of a list in order, and over again. */
export const playlist = () => {
  let faults: ReadonlyArray<Fault> = []
  let position = 0
  return {
    play: (next: ReadonlyArray<Fault>) => {
      faults = next
      position = 0
    },
    next: (): Fault | undefined => (faults.length === 0 ? undefined : faults[position++ % faults.length])
  }
}

export const suffer = <A, E>(
  fault: Fault | undefined,
  work: Effect.Effect<A, E>,
  how: {
    readonly unavailable: (cause: unknown) => E
    readonly canceled: (cause: unknown) => E
    readonly reject: (names: boolean) => Effect.Effect<A, E>
  }
): Effect.Effect<A, E> => {
  switch (fault?._tag) {
    case undefined:
      return work
    case "Delay":
      return Effect.delay(work, fault.millis)
    case "Fail": {
      const failure = fault.reason === "Canceled" ? how.canceled : how.unavailable
      return Effect.delay(Effect.fail(failure(new Error("down"))), fault.millis)
    }
    case "Reject":
      return how.reject(fault.names)
    case "Die":
      return Effect.die(new Error("a defect"))
    case "Throw":
      throw new Error("thrown by the caller")
    case "Interrupt":
      return Effect.interrupt
    case "Hang":
      return fault.interruptible ? Effect.never : Effect.uninterruptible(Effect.never)
    case "Late":
      return Effect.uninterruptible(Effect.delay(work, fault.millis))
    case "AnswerLost":
      return Effect.andThen(work, Effect.fail(how.unavailable(new Error("connection lost"))))
  }
}

const rowsOf = (batch: MetadataBatch): ReadonlyArray<Row> =>
  batch.agentIds.map((agentId, row) => ({
    agentId,
    key: batch.keys[row] ?? "",
    value: batch.values[row] ?? "",
    collectedAt: batch.collectedAt[row] ?? Number.NaN
  }))
