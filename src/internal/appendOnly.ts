import * as Effect from "effect/Effect"
import * as MutableList from "effect/MutableList"
import type { AgentStatsRow } from "../AgentStats.ts"
import type { Accumulator, Ledger, Message } from "../Batcher.ts"

/** One report of connection statistics. */
export interface Report extends Message {
  /** Undefined for what turned out to be no report. */
  readonly stats: AgentStatsRow | undefined
}

/** A report waiting to be written. */
export interface Row {
  readonly origin: Report
  readonly stats: AgentStatsRow
}

/**
 * Keeps every report in the order it came. At `maxPending` the oldest goes
 * first: statistics are looked at for what happens now.
 */
export const make = (ledger: Ledger, maxPending: number): Effect.Effect<Accumulator<Report, Row>> =>
  Effect.sync(() => {
    const pending = MutableList.make<Row>()

    const append = (report: Report): void => {
      const { stats } = report
      if (stats === undefined) {
        ledger.discarded += 1
        return
      }
      if (ledger.pending + ledger.inFlight >= maxPending) {
        if (MutableList.take(pending) === MutableList.Empty) {
          // Everything is in a write: nothing older can make room.
          ledger.dropped += 1
          return
        }
        ledger.pending -= 1
        ledger.discarded += 1
      }
      MutableList.append(pending, { origin: report, stats })
      ledger.pending += 1
    }

    return {
      fold: (next) =>
        Effect.sync(() => {
          for (let report = next(); report !== undefined; report = next()) append(report)
        }),
      take: (max) =>
        Effect.sync(() => {
          const taken = MutableList.takeN(pending, max)
          ledger.pending -= taken.length
          ledger.inFlight += taken.length
          return taken
        }),
      restore: (rows) =>
        Effect.sync(() => {
          MutableList.prependAllUnsafe(pending, rows)
          ledger.inFlight -= rows.length
          ledger.pending += rows.length
        }),
      oldest: (writing) => {
        let oldest = pending.head?.array[pending.head.offset]?.origin.addedAt
        for (const { origin } of writing) {
          if (oldest === undefined || origin.addedAt < oldest) oldest = origin.addedAt
        }
        return oldest
      }
    }
  })
