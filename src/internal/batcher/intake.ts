import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Tracer from "effect/Tracer"
import type { Account } from "./account.ts"
import type { Accumulate, Accumulator } from "./accumulator.ts"
import { reference } from "./flushSpan.ts"
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

/** What the intake tells of what it does not take as it is. */
export interface IntakeEvents {
  readonly dropped: (count: number, why: string, group: string) => void
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
  const { account, accumulate, accumulator, capacity, events, maxPending, maxPendingBytes } = options
  const { bytes: bytesOf, key: keyOf, time: timeOf } = accumulate
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

  /**
   * A report of these records, or nothing if not each of them can be taken as it is.
   *
   * Agents of one kind list the same keys. While the keys and the times are at
   * hand it is noted whether these do: folding then looks at no record again.
   */
  const hold = (
    group: string,
    records: ReadonlyArray<A>,
    latest: number,
    span: Tracer.AnySpan | undefined
  ): Held<A> | undefined => {
    const keys = accumulator.commonKeys()
    let areCommon = true
    let bytes = 0
    let oldest = Number.POSITIVE_INFINITY
    let newest = Number.NEGATIVE_INFINITY
    try {
      for (let i = 0; i < records.length; i++) {
        const record = records[i] as A
        bytes += bytesOf(record)
        if (timeOf !== undefined) {
          const time = timeOf(record)
          if (!(time <= latest)) return undefined
          if (time < oldest) oldest = time
          if (time > newest) newest = time
        }
        if (areCommon) areCommon = hasKey(record, keys[i])
      }
      areCommon &&= records.length === keys.length
    } catch {
      return undefined
    }
    if (!(bytes >= 0)) return undefined
    return {
      group,
      records,
      own: undefined,
      bytes,
      since: at,
      spans: span === undefined ? noSpans : [span],
      keys: areCommon ? keys : undefined,
      oldest,
      newest,
      quiet: false
    }
  }

  // A key that cannot be told costs its own record, and that later: others of the report are taken.
  const hasKey = (record: A, key: string | undefined): boolean => {
    try {
      return keyOf(record) === key
    } catch {
      return false
    }
  }

  const dated = (record: A, latest: number): A => {
    const { withTime } = accumulate
    return withTime !== undefined && timeOf !== undefined && timeOf(record) > latest
      ? withTime(record, at)
      : record
  }

  /** Those records that are what they should be; dated now, if they are dated too far ahead. */
  const usable = (records: ReadonlyArray<A>, size: number, latest: number, group: string): Array<A> => {
    const taken: Array<A> = []
    let redated = 0
    for (let i = 0; i < size; i++) {
      try {
        const record = records[i] as A
        const usable = dated(record, latest)
        if (!(bytesOf(usable) >= 0) || (timeOf !== undefined && !Number.isFinite(timeOf(usable)))) continue
        if (usable !== record) redated += 1
        taken.push(usable)
      } catch {
        // A getter threw: whatever this was, it cannot be kept.
      }
    }
    if (redated > 0) events.dated(redated, group)
    return taken
  }

  const take = (report: Held<A>): number => {
    const size = report.records.length
    if (account.queued + size > capacity) foldUnsafe(never)
    const isRoomSure = account.waiting + size <= maxPending && account.bytes + report.bytes <= maxPendingBytes
    if (!isRoomSure) {
      foldUnsafe(never)
      const taken = accumulator.admit(report)
      queued.raiseUnsafe()
      if (taken < size) events.dropped(size - taken, "no room", report.group)
      account.dropped += size - taken
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

  const takePart = (
    group: string,
    records: ReadonlyArray<A>,
    span: Tracer.AnySpan | undefined,
    latest: number
  ): number => {
    const size = sizeOf(records) || 0
    account.offered += size
    if (isClosed) {
      account.dropped += size
      events.dropped(size, "closed", group)
      return 0
    }
    // More than `maxPending` records cannot be taken, and an array may lie about its length.
    const taken = typeof group === "string" ? usable(records, Math.min(size, maxPending), latest, group) : []
    const invalid = size - taken.length
    if (invalid > 0) {
      account.dropped += invalid
      events.dropped(invalid, "not what they should be", String(group))
    }
    if (taken.length === 0) return 0
    const report = hold(group, taken, Infinity, span)
    if (report !== undefined) return take(report)
    // A getter said something else when it was asked again: that costs its own record.
    let count = 0
    for (const record of taken) {
      const alone = hold(group, [record], Infinity, span)
      if (alone !== undefined) {
        count += take(alone)
        continue
      }
      account.dropped += 1
      events.dropped(1, "not what they should be", group)
    }
    return count
  }

  return {
    offerUnsafe: (group, records, callersSpan) => {
      // Those added in one turn of the event loop share a reading: it costs as much as the rest of an offer.
      if (account.queued === 0) at = options.now()
      const span = reference(callersSpan)
      const latest = at + options.maxAhead
      const isPlain = !isClosed && Array.isArray(records) && typeof group === "string"
      // An array may lie about its length: NaN would spread through the whole account.
      const size = isPlain ? sizeOf(records) : Number.NaN
      const report = size >= 0 ? hold(group, records, latest, span) : undefined
      if (report === undefined) return takePart(group, records, span, latest)
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

/** How many records something claims to hold; NaN if that cannot be. */
const sizeOf = (records: unknown): number => {
  try {
    const size = Array.isArray(records) ? records.length : Number.NaN
    return Number.isSafeInteger(size) && size >= 0 ? size : Number.NaN
  } catch {
    return Number.NaN
  }
}
