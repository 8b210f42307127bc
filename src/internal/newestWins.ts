import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as MutableList from "effect/MutableList"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type { AgentId } from "../AgentId.ts"
import type { Accumulator, Ledger, Message } from "../Batcher.ts"
import type { Metadata } from "../Metadata.ts"
import { KeyedRows } from "./keyedRows.ts"

/** The facts of one report. */
export interface Report extends Message {
  readonly agentId: AgentId
  /** None once they have been folded: a row that waits must not keep the others of its report. */
  facts: ReadonlyArray<Metadata>
}

/** When reports came, shared by all that came then: a number of its own would cost each row an allocation. */
interface Arrival {
  readonly at: number
}

/** A fact waiting to be written, with the report that brought it. Replaced in place by newer ones, until it is taken. */
export interface Row {
  origin: Report
  fact: Metadata
  /** Since when its key has waited to be written, whatever replaced it meanwhile. */
  since: Arrival
}

/** The waiting rows of one agent. */
interface Bucket {
  readonly agentId: AgentId
  readonly keyed: KeyedRows<Row>
  /** How many of its rows go before those of the agents behind it; what comes later waits for its next turn. */
  due: number
}

type Buckets = HashMap.HashMap<AgentId, Bucket>

/**
 * Keeps the newest fact per agent and key: one `HashMap` entry per agent, with
 * the agent's `KeyedRows` inside. Hashing an agent's id once per report instead
 * of an (agent, key) pair once per fact is worth a factor of five to twenty.
 */
export const make = Effect.fnUntraced(function* (
  ledger: Ledger,
  maxPending: number
): Effect.fn.Return<Accumulator<Report, Row>> {
  const pending = yield* Ref.make(HashMap.empty<AgentId, Bucket>())
  // The buckets in the order in which they began to wait. A HashMap has none, and those it lists last would starve.
  const order = MutableList.make<Bucket>()

  const bucketOf = (buckets: Buckets, agentId: AgentId): Bucket | undefined =>
    Option.getOrUndefined(HashMap.get(buckets, agentId))

  const addBucket = (buckets: Buckets, agentId: AgentId): Bucket => {
    const bucket: Bucket = { agentId, keyed: new KeyedRows(), due: 0 }
    HashMap.set(buckets, agentId, bucket)
    MutableList.append(order, bucket)
    return bucket
  }

  let arrival: Arrival = { at: 0 }

  const foldReport = (buckets: Buckets, report: Report): void => {
    const { agentId, facts, size } = report
    const room = maxPending - ledger.pending - ledger.inFlight
    if (arrival.at !== report.addedAt) arrival = { at: report.addedAt }
    const since = arrival
    let added = 0
    let superseded = 0
    let dropped = 0
    try {
      let keyed = bucketOf(buckets, agentId)?.keyed
      if (keyed === undefined && room <= 0) {
        ledger.dropped += size
        return
      }
      for (let i = 0; i < size; i++) {
        const fact = facts[i] as Metadata
        // Types do not bind JavaScript, and a fact without a time would hide those that have one.
        if (!Number.isFinite(fact?.collectedAt?.epochMilliseconds)) continue
        const row = keyed?.get(fact.key, i)
        if (row !== undefined) {
          if (fact.collectedAt.epochMilliseconds >= row.fact.collectedAt.epochMilliseconds) {
            row.fact = fact
            row.origin = report
          }
          superseded += 1
        } else if (added < room) {
          keyed ??= addBucket(buckets, agentId).keyed
          keyed.add({ origin: report, fact, since })
          added += 1
        } else {
          dropped += 1
        }
      }
    } catch {
      // What throws when it is looked at must not end the collector; it and what follows it are counted below.
    }
    report.facts = noFacts
    ledger.pending += added
    ledger.superseded += superseded
    ledger.dropped += dropped
    ledger.discarded += size - added - superseded - dropped
  }

  const restoreRow = (buckets: Buckets, row: Row): void => {
    const { agentId } = row.origin
    const { keyed } = bucketOf(buckets, agentId) ?? addBucket(buckets, agentId)
    const newer = keyed.get(row.fact.key, 0)
    ledger.inFlight -= 1
    if (newer === undefined) {
      keyed.add(row)
      ledger.pending += 1
      return
    }
    ledger.superseded += 1
    newer.since = row.since
    // What came during the write is the later add: it wins when the times are equal.
    if (row.fact.collectedAt.epochMilliseconds > newer.fact.collectedAt.epochMilliseconds) {
      newer.fact = row.fact
      newer.origin = row.origin
    }
  }

  /** Moves at most `max` rows over; true when none is left. */
  const takeFrom = ({ keyed }: Bucket, max: number, taken: Array<Row>): boolean => {
    const all = keyed.rows.length <= max
    for (const row of all ? keyed.rows : keyed.take(max)) taken.push(row)
    return all
  }

  return {
    fold: (next) =>
      Ref.update(pending, (buckets) =>
        HashMap.mutate(buckets, (draft) => {
          for (let report = next(); report !== undefined; report = next()) foldReport(draft, report)
        })
      ),

    take: (max) =>
      Ref.modify(pending, (buckets) => {
        const taken: Array<Row> = []
        const emptied: Array<AgentId> = []
        for (let head = first(order); head !== undefined && taken.length < max; head = first(order)) {
          if (head.due === 0) head.due = head.keyed.rows.length
          const count = Math.min(head.due, max - taken.length)
          const isEmpty = takeFrom(head, count, taken)
          head.due -= count
          if (!isEmpty && head.due > 0) break
          MutableList.take(order)
          if (isEmpty) emptied.push(head.agentId)
          else MutableList.append(order, head)
        }
        ledger.pending -= taken.length
        ledger.inFlight += taken.length
        return [taken, order.length === 0 ? HashMap.empty() : HashMap.removeMany(buckets, emptied)]
      }),

    restore: (rows) =>
      Ref.update(pending, (buckets) =>
        HashMap.mutate(buckets, (draft) => {
          for (const row of rows) restoreRow(draft, row)
        })
      ),

    oldest: (writing) => {
      let oldest = oldestOf(writing)
      for (const { keyed } of HashMap.values(Ref.getUnsafe(pending))) {
        oldest = Math.min(oldest, oldestOf(keyed.rows))
      }
      return oldest === Number.POSITIVE_INFINITY ? undefined : oldest
    }
  }
})

const noFacts: ReadonlyArray<Metadata> = []

const oldestOf = (rows: Iterable<Row>): number => {
  let oldest = Number.POSITIVE_INFINITY
  for (const { since } of rows) if (since.at < oldest) oldest = since.at
  return oldest
}

const first = <A>(list: MutableList.MutableList<A>): A | undefined => list.head?.array[list.head.offset]
