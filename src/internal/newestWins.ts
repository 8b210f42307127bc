import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as MutableList from "effect/MutableList"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type * as Tracer from "effect/Tracer"
import type { AgentId } from "../AgentId.ts"
import type { Accumulator, Message, Traced } from "../Batcher.ts"
import type { Metadata } from "../Metadata.ts"
import type { Ledger } from "./ledger.ts"

/** The facts of one report. */
export interface Report extends Message {
  readonly agentId: AgentId
  readonly facts: ReadonlyArray<Metadata>
}

/** A fact waiting to be written. Replaced in place by newer ones, until it is taken. */
export interface Row extends Traced {
  readonly agentId: AgentId
  fact: Metadata
  addedAt: number
  span: Tracer.AnySpan | undefined
}

/** The waiting rows of one agent, by key. */
interface Bucket {
  readonly agentId: AgentId
  readonly rows: Map<string, Row>
}

/**
 * Keeps the newest fact per agent and key: one `HashMap` entry per agent, with
 * a plain `Map` of its keys inside. Hashing an agent's id once per report
 * instead of an (agent, key) pair once per fact is worth a factor of five to
 * twenty; `scripts/bench` has the figures.
 */
export const make = Effect.fnUntraced(function* (
  ledger: Ledger,
  maxPending: number
): Effect.fn.Return<Accumulator<Report, Row>> {
  const pending = yield* Ref.make(HashMap.empty<AgentId, Bucket>())
  // The buckets in the order in which they began to wait. A HashMap has none, and those it lists last would starve.
  const order = MutableList.make<Bucket>()

  const addBucket = (buckets: HashMap.HashMap<AgentId, Bucket>, agentId: AgentId): Bucket => {
    const bucket: Bucket = { agentId, rows: new Map() }
    HashMap.set(buckets, agentId, bucket)
    MutableList.append(order, bucket)
    return bucket
  }

  const foldReport = (buckets: HashMap.HashMap<AgentId, Bucket>, report: Report): void => {
    const { addedAt, agentId, facts, size, span } = report
    let room = maxPending - ledger.pending - ledger.inFlight
    const found = HashMap.get(buckets, agentId)
    if (room <= 0 && Option.isNone(found)) {
      ledger.dropped += size
      return
    }
    const { rows } = Option.isSome(found) ? found.value : addBucket(buckets, agentId)
    for (let i = 0; i < size; i++) {
      const fact = facts[i] as Metadata
      const row = rows.get(fact.key)
      if (row === undefined) {
        if (room > 0) {
          rows.set(fact.key, { agentId, fact, addedAt, span })
          ledger.pending += 1
          room -= 1
        } else {
          ledger.dropped += 1
        }
      } else {
        if (fact.collectedAt.epochMilliseconds >= row.fact.collectedAt.epochMilliseconds) {
          row.fact = fact
          row.span = span
        }
        ledger.superseded += 1
      }
    }
  }

  /** A fact that is none (types do not bind JavaScript) must not end the collector, nor go uncounted. */
  const foldSafely = (buckets: HashMap.HashMap<AgentId, Bucket>, report: Report): void => {
    const before = ledger.pending + ledger.superseded + ledger.dropped
    try {
      foldReport(buckets, report)
    } catch {
      ledger.discarded += report.size - (ledger.pending + ledger.superseded + ledger.dropped - before)
    }
  }

  const restoreRow = (buckets: HashMap.HashMap<AgentId, Bucket>, row: Row): void => {
    const found = HashMap.get(buckets, row.agentId)
    const { rows } = Option.isSome(found) ? found.value : addBucket(buckets, row.agentId)
    const newer = rows.get(row.fact.key)
    ledger.inFlight -= 1
    if (newer === undefined) {
      rows.set(row.fact.key, row)
      ledger.pending += 1
      return
    }
    ledger.superseded += 1
    newer.addedAt = row.addedAt
    // What came during the write is the later add: it wins when the times are equal.
    if (row.fact.collectedAt.epochMilliseconds > newer.fact.collectedAt.epochMilliseconds) {
      newer.fact = row.fact
      newer.span = row.span
    }
  }

  return {
    fold: (next) =>
      Ref.update(pending, (buckets) =>
        HashMap.mutate(buckets, (draft) => {
          for (let report = next(); report !== undefined; report = next()) foldSafely(draft, report)
        })
      ),

    take: (max) =>
      Ref.modify(pending, (buckets) => {
        const taken: Array<Row> = []
        const left = HashMap.mutate(buckets, (draft) => {
          while (taken.length < max && order.length > 0) {
            const bucket = order.head?.array[order.head.offset] as Bucket
            for (const [key, row] of bucket.rows) {
              if (taken.length === max) break
              taken.push(row)
              bucket.rows.delete(key)
            }
            if (bucket.rows.size === 0) {
              MutableList.take(order)
              HashMap.remove(draft, bucket.agentId)
            }
          }
        })
        ledger.pending -= taken.length
        ledger.inFlight += taken.length
        return [taken, left]
      }),

    restore: (rows) =>
      Ref.update(pending, (buckets) =>
        HashMap.mutate(buckets, (draft) => {
          for (const row of rows) restoreRow(draft, row)
        })
      ),

    oldest: () => {
      let oldest: number | undefined
      for (const bucket of HashMap.values(Ref.getUnsafe(pending))) {
        for (const row of bucket.rows.values()) {
          if (oldest === undefined || row.addedAt < oldest) oldest = row.addedAt
        }
      }
      return oldest
    }
  }
})
