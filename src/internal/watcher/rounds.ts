import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Random from "effect/Random"
import type { AgentId } from "../../AgentId.ts"
import type { AgentMetadata, Metadata } from "../../Metadata.ts"
import { type Store, StoreError, unavailable } from "../../Store.ts"
import { bounded } from "../bounded.ts"
import { monotonicMillis } from "../monotonicMillis.ts"
import { textOf } from "../textOf.ts"
import { type Cell, type Cells, refreshParts } from "./cells.ts"
import type { Meters } from "./meters.ts"
import type { Resolved } from "./options.ts"
import * as RoundSpan from "./roundSpan.ts"
import type { Trouble } from "./trouble.ts"

/**
 * Agents to a statement. The answer is decoded in one go: 2,000 agents of 10
 * facts take about 40 ms of CPU (2 µs a fact, EPYC, one run).
 */
export const maxAgentsPerRead = 2_000

/** After this a read counts as failed; whatever it brings later is not looked at. */
export const readTimeoutMillis = 30_000

/** The longest pause between two attempts to read while the store is away. */
export const maxPauseMillis = 5_000

/** Watchers that are woken in one turn of the event loop: a few milliseconds' worth. */
const wakesPerTurn = 256

/** The reading of what is watched, one round after the other. */
export interface Rounds {
  /** Has a round begin as soon as it may, because something is due. */
  readonly wake: () => void
  /** Marks what is watched of these agents as due. */
  readonly announced: (agentIds: ReadonlyArray<AgentId>) => void
  /** Since when reads have been failing. */
  readonly failingSince: () => DateTime.Utc | undefined
  /** Runs until it is interrupted. */
  readonly run: Effect.Effect<never>
}

export const make = (parts: {
  readonly store: Store["Service"]
  readonly cells: Cells
  readonly clock: Clock.Clock
  readonly options: Resolved
  readonly meters: Meters
  readonly trouble: Trouble
}): Rounds => {
  const { cells, clock, meters, options, store, trouble } = parts
  const now = () => monotonicMillis(clock)
  const woken = Latch.makeUnsafe(false)
  const wake = () => void woken.openUnsafe()
  let nextAt = Number.NEGATIVE_INFINITY
  let failingSince: DateTime.Utc | undefined
  // The first announcement that no round has answered yet.
  let announcedAt: number | undefined

  const refreshTick = Math.ceil(Math.max(options.minInterval, options.refreshInterval / refreshParts))
  const awaitWork = Effect.suspend(() => {
    if (woken.isOpen()) return Effect.void
    return cells.size() === 0 ? woken.await : Effect.timeoutOption(woken.await, refreshTick)
  })

  // A turn of the event loop at the least, so that those who come within one are read together.
  const pace = Effect.suspend(() => (nextAt > now() ? Effect.sleep(nextAt - now()) : Effect.yieldNow))

  /** Wakes who watches these, a part of them per turn. */
  const deliver = Effect.fnUntraced(function* (changed: ReadonlyArray<Cell>) {
    let wakes = 0
    for (const { watchers } of changed) {
      for (const mailbox of watchers) {
        mailbox.wake()
        wakes += 1
        if (wakes % wakesPerTurn === 0) yield* Effect.yieldNow
      }
    }
  })

  const fetch = (
    chunk: ReadonlyArray<Cell>
  ): Effect.Effect<ReadonlyMap<AgentId, ReadonlyArray<Metadata>>, StoreError> =>
    Effect.map(
      bounded<ReadonlyArray<AgentMetadata>, StoreError>(
        Effect.suspend(() => store.metadataOf(chunk.map(({ agentId }) => agentId))),
        Effect.sleep(readTimeoutMillis),
        () => Exit.fail(unavailable(new Error(`no answer within ${readTimeoutMillis / 1000} seconds`)))
      ),
      (agents) => new Map(agents.map(({ agentId, facts }) => [agentId, facts]))
    )

  /** Reads one statement's worth and shows it. Returns why it could not. */
  const read = Effect.fnUntraced(function* (
    chunk: ReadonlyArray<Cell>,
    span: RoundSpan.RoundSpan
  ): Effect.fn.Return<StoreError | undefined> {
    const startedAt = now()
    const since = DateTime.makeUnsafe(clock.currentTimeMillisUnsafe())
    const exit = yield* Effect.exit(span.inside(fetch(chunk)))
    // Those who have left meanwhile may have come back, to another cell.
    const watched = chunk.filter(({ watchers }) => watchers.size > 0)
    if (Exit.isSuccess(exit)) {
      meters.read(chunk.length, (now() - startedAt) / 1000)
      yield* deliver(watched.filter((cell) => cells.show(cell, exit.value.get(cell.agentId) ?? [])))
      return undefined
    }
    const error = toStoreError(exit.cause)
    meters.readFailed(error.reason._tag)
    failingSince ??= since
    yield* deliver(watched.filter((cell) => cells.markStale(cell, since)))
    return error
  })

  const readAll = Effect.fnUntraced(function* (
    due: ReadonlyArray<Cell>,
    span: RoundSpan.RoundSpan
  ): Effect.fn.Return<StoreError | undefined> {
    let failure: StoreError | undefined
    span.annotate({ "watcher.round.agents": due.length, "watcher.round.outcome": "read" })
    yield* Effect.forEach(
      toChunks(due),
      (chunk) =>
        // A store that is away need not be asked again for the rest.
        failure?.reason._tag === "Unavailable"
          ? Effect.void
          : Effect.map(read(chunk, span), (error) => {
              failure ??= error
            }),
      { concurrency: options.readConcurrency, discard: true }
    )
    if (failure !== undefined)
      span.annotate({ "watcher.round.outcome": "failed", "error.type": failure.reason._tag })
    return failure
  })

  const pauseAfterFailure = Effect.map(Random.next, (random) => {
    const doubled = options.minInterval * 2 ** Math.min(trouble.attempts() - 1, 16)
    const pause = Math.min(doubled, Math.max(options.minInterval, maxPauseMillis))
    return Math.ceil(pause * (0.8 + 0.4 * random))
  })

  const failed = Effect.fnUntraced(function* (why: string) {
    // Whatever was announced meanwhile may not have reached us either.
    cells.markAllDue()
    wake()
    yield* trouble.failed(why)
    nextAt = Math.max(nextAt, now() + (yield* pauseAfterFailure))
  })

  const round = Effect.fnUntraced(function* (due: ReadonlyArray<Cell>) {
    nextAt = now() + options.minInterval
    meters.round()
    const announced = announcedAt
    announcedAt = undefined
    const failure = yield* RoundSpan.root("MetadataWatcher.round", (span) => readAll(due, span))
    if (failure !== undefined) {
      announcedAt ??= announced
      return yield* failed(failure.message)
    }
    failingSince = undefined
    if (announced !== undefined) meters.delayed((now() - announced) / 1000)
    yield* trouble.succeeded
  })

  const next = Effect.gen(function* () {
    yield* awaitWork
    yield* pace
    woken.closeUnsafe()
    const due = cells.takeDue(now())
    if (due.length > 0) yield* round(due)
  })

  return {
    wake,
    announced: (agentIds) => {
      let watched = false
      for (const agentId of agentIds) watched = cells.markDue(agentId) || watched
      if (!watched) return
      announcedAt ??= now()
      wake()
    },
    failingSince: () => failingSince,
    run: Effect.forever(
      Effect.catchDefect(next, (defect) => failed(textOf(defect))),
      // Each round yields on its own.
      { disableYield: true }
    )
  }
}

const toChunks = (due: ReadonlyArray<Cell>): ReadonlyArray<ReadonlyArray<Cell>> =>
  Array.from({ length: Math.ceil(due.length / maxAgentsPerRead) }, (_, i) =>
    due.slice(i * maxAgentsPerRead, (i + 1) * maxAgentsPerRead)
  )

const toStoreError = (cause: Cause.Cause<StoreError>): StoreError => {
  const error = Cause.squash(cause)
  return error instanceof StoreError ? error : unavailable(error)
}
