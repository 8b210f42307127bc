import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Tracer from "effect/Tracer"
import type { Account } from "./account.ts"
import type { Accumulate, Accumulator } from "./accumulator.ts"
import { reference } from "./flushSpan.ts"
import * as Guard from "./guard.ts"
import { type Held, noSpans } from "./held.ts"
import * as Signal from "./signal.ts"

/** Where records come in. */
export interface Intake<in A> {
  /** Takes what there is room for and says how many records that was. Never waits, never throws. */
  readonly offerUnsafe: (group: string, records: ReadonlyArray<A>, span: Tracer.AnySpan | undefined) => number
  /** Folds what is queued, until `isEnough`. */
  readonly foldUnsafe: (isEnough: () => boolean) => void
  /** Waits until something has been queued. */
  readonly awaitQueued: Effect.Effect<void>
  /** Takes nothing from now on. */
  readonly closeUnsafe: () => void
}

/** What the intake tells of what it does not take as it is. Of a group that is no text, too. */
export interface IntakeEvents {
  readonly dropped: (count: number, why: string, group: unknown) => void
  readonly dated: (count: number, group: string) => void
}

const never = () => false

export const make = Effect.fnUntraced(function* <A>(options: {
  readonly accumulate: Accumulate<A>
  readonly accumulator: Accumulator<A>
  readonly account: Account
  readonly capacity: number
  readonly maxPending: number
  readonly maxPendingBytes: number
  readonly maxAhead: number
  readonly now: () => number
  readonly events: IntakeEvents
}): Effect.fn.Return<Intake<A>> {
  const { account, accumulator, capacity, events, maxPending, maxPendingBytes } = options
  const { hold, usable } = Guard.make(options.accumulate, accumulator)
  // A queue of messages: a report is one, however many records it brings.
  const queue = yield* Queue.dropping<Held<A>>(capacity)
  const queued = yield* Signal.make
  let at = 0
  let isClosed = false

  const foldUnsafe = (isEnough: () => boolean): void => {
    while (!isEnough()) {
      const exit = Queue.takeUnsafe(queue)
      if (exit === undefined || exit._tag === "Failure") break
      accumulator.fold(exit.value)
    }
  }

  const drop = (count: number, why: string, group: unknown): void => {
    account.dropped += count
    if (count > 0) events.dropped(count, why, group)
  }

  const take = (report: Held<A>): number => {
    const size = report.records.length
    if (account.queued + size > capacity) foldUnsafe(never)
    const isRoomSure = account.waiting + size <= maxPending && account.bytes + report.bytes <= maxPendingBytes
    if (!isRoomSure) {
      foldUnsafe(never)
      const taken = accumulator.admit(report)
      queued.raiseUnsafe()
      drop(size - taken, "no room", report.group)
      return taken
    }
    account.queued += size
    account.bytes += report.bytes
    // A report larger than the queue: it is empty, so this one is next.
    if (size > capacity) accumulator.fold(report)
    else Queue.offerUnsafe(queue, report)
    queued.raiseUnsafe()
    return size
  }

  /** Takes what can be taken of something that is no report as it is. */
  const takePart = (
    group: string,
    offered: ReadonlyArray<A>,
    latest: number,
    spans: Held<A>["spans"]
  ): number => {
    const size = Guard.sizeOf(offered) || 0
    account.offered += size
    if (isClosed) {
      drop(size, "closed", group)
      return 0
    }
    // More than `maxPending` records cannot be taken, and an array may lie about its length.
    const most = typeof group === "string" ? Math.min(size, maxPending) : 0
    const { dated, records } = usable(offered, most, at, latest)
    if (dated > 0) events.dated(dated, group)
    drop(size - records.length, "not what they should be", group)
    if (records.length === 0) return 0
    const report = hold(group, records, at, Infinity, spans)
    if (report !== undefined) return take(report)
    // A getter said something else when it was asked again: that costs its own record.
    let count = 0
    for (const record of records) {
      const alone = hold(group, [record], at, Infinity, spans)
      if (alone === undefined) drop(1, "not what they should be", group)
      else count += take(alone)
    }
    return count
  }

  return {
    offerUnsafe: (group, records, callersSpan) => {
      // Those added in one turn of the event loop share a reading: it costs as much as the rest of an offer.
      if (account.queued === 0) at = options.now()
      const span = reference(callersSpan)
      const spans = span === undefined ? noSpans : [span]
      const latest = at + options.maxAhead
      const isPlain = !isClosed && Array.isArray(records) && typeof group === "string"
      // An array may lie about its length: NaN would spread through the whole account.
      const size = isPlain ? Guard.sizeOf(records) : Number.NaN
      const report = size >= 0 ? hold(group, records, at, latest, spans) : undefined
      if (report === undefined) return takePart(group, records, latest, spans)
      if (size === 0) return 0
      account.offered += size
      return take(report)
    },
    foldUnsafe,
    awaitQueued: queued.wait,
    closeUnsafe: () => {
      isClosed = true
    }
  }
})
