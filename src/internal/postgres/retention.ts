import type * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { SqlError } from "effect/sql/SqlError"
import type { Pace } from "./pace.ts"
import * as Partitions from "./partitions.ts"
import * as Statements from "./retentionStatements.ts"

/** What a pass has done. */
export interface Removed {
  /** Rows of connection statistics deleted, without those of dropped partitions. */
  readonly stats: number
  /** Rows of metadata deleted. */
  readonly metadata: number
  readonly droppedPartitions: number
  readonly madePartitions: number
}

export const nothing: Removed = { stats: 0, metadata: 0, droppedPartitions: 0, madePartitions: 0 }

/** Of what happens in a pass, as soon as it does. */
export interface Observer {
  readonly deleted: (rows: number) => void
  readonly dropped: () => void
  readonly made: (count: number) => void
  /** By how many milliseconds what is left is older than it should be. */
  readonly lags: (millis: number) => void
}

interface Table {
  readonly sql: PgClient.PgClient
  readonly clock: Clock.Clock
  readonly pace: Pace
  readonly observer: Observer
  /** Quoted. */
  readonly table: string
  readonly ageMillis: number
}

const execute = <Row extends object>(
  { sql }: Table,
  statement: string,
  parameters: ReadonlyArray<PgTypes.Parameter>
) => sql.unsafe<Row>(statement, parameters).withoutTransform

/** How often a pass looks at the very beginning. */
const sweepMillis = 3_600_000

/**
 * Deletes what is too old of the statistics. Where the last statement ended the
 * next one begins, across passes too; once an hour one looks at the very
 * beginning, for rows that came late.
 */
export const stats = (options: Table & { readonly partitionsAhead: number }) => {
  const { ageMillis, clock, observer, pace, partitionsAhead, sql, table } = options
  const begin = new Map<string, number>()
  let sweptAt = Number.NEGATIVE_INFINITY

  const deleteOnce = (leaf: string, size: number, now: number) =>
    Effect.map(
      execute<Statements.Deleted>(options, Statements.deleteStats(leaf, size), [
        PgTypes.text(table),
        PgTypes.timestamptz(now - ageMillis),
        PgTypes.float8(ageMillis),
        PgTypes.float8(begin.get(leaf) ?? Number.NEGATIVE_INFINITY)
      ]),
      ([deleted]) => deleted
    )

  /** Says how many rows went. */
  const deleteFrom = Effect.fnUntraced(function* (leaf: string): Effect.fn.Return<number, SqlError> {
    let total = 0
    while (true) {
      const now = clock.currentTimeMillisUnsafe()
      const size = pace.size()
      const deleted = yield* pace.take(deleteOnce(leaf, size, now))
      if (deleted === undefined || !deleted.mine) {
        // What is left is the other replica's to tell; told here, it would stay when that has caught up.
        observer.lags(0)
        return total
      }
      total += deleted.rows
      observer.deleted(deleted.rows)
      if (deleted.upTo !== null) begin.set(leaf, deleted.upTo)
      if (deleted.rows < size) {
        observer.lags(0)
        return total
      }
      observer.lags(Math.max(0, now - ageMillis - (deleted.upTo ?? now) / 1_000))
    }
  })

  const partitions = Effect.fnUntraced(function* (): Effect.fn.Return<Removed, SqlError> {
    const now = clock.currentTimeMillisUnsafe()
    const madePartitions = yield* Partitions.makeAhead(sql, table, now, partitionsAhead)
    observer.made(madePartitions)
    let droppedPartitions = 0
    for (const name of yield* Partitions.expiredOf(sql, table, now - ageMillis, ageMillis)) {
      if (!(yield* pace.take(Partitions.drop(sql, table, name)))) continue
      droppedPartitions += 1
      observer.dropped()
    }
    return { ...nothing, madePartitions, droppedPartitions }
  })

  return Effect.gen(function* () {
    const now = clock.currentTimeMillisUnsafe()
    if (now - sweptAt >= sweepMillis) {
      begin.clear()
      sweptAt = now
    }
    const layout = yield* Partitions.layoutOf(sql, table)
    const removed = layout === "time" ? yield* partitions() : nothing
    const leaves =
      layout === "plain"
        ? [table]
        : yield* layout === "time" ? Partitions.defaultOf(sql, table) : Partitions.leavesOf(sql, table)
    let deleted = 0
    for (const leaf of leaves) deleted += yield* deleteFrom(leaf)
    return { ...removed, stats: deleted }
  })
}

/** Deletes the facts of agents that are unseen for too long, in one walk along the primary key. */
export const agents = (options: Table) => {
  const { ageMillis, clock, observer, pace, table } = options

  const cutoff = () => [
    PgTypes.timestamptz(clock.currentTimeMillisUnsafe() - ageMillis),
    PgTypes.float8(ageMillis)
  ]

  const nextPage = (after: string | undefined) =>
    Effect.map(
      execute<Statements.Page>(options, Statements.selectUnseen(table, pace.size(), after === undefined), [
        PgTypes.uuid(after ?? "00000000-0000-0000-0000-000000000000"),
        ...cutoff()
      ]),
      ([page]) => page ?? { last: null, unseen: [] }
    )

  const deleteOnce = (unseen: ReadonlyArray<string>, size: number) =>
    Effect.map(
      execute<Statements.Deleted>(options, Statements.deleteUnseen(table, size), [
        PgTypes.text(table),
        ...cutoff(),
        Result.getOrThrow(PgTypes.array(unseen, PgTypes.OID.uuid))
      ]),
      ([deleted]) => deleted ?? { mine: false, rows: 0, upTo: null }
    )

  return Effect.gen(function* () {
    let metadata = 0
    let after: string | undefined
    while (true) {
      const { last, unseen } = yield* pace.take(nextPage(after))
      let size = 0
      let rows = unseen.length > 0 ? Number.POSITIVE_INFINITY : 0
      while (rows >= size && rows > 0) {
        size = pace.size()
        const deleted = yield* pace.take(deleteOnce(unseen, size))
        // Another replica is at it and will come to the rest.
        if (!deleted.mine) return { ...nothing, metadata }
        rows = deleted.rows
        metadata += rows
        observer.deleted(rows)
      }
      if (last === null) return { ...nothing, metadata }
      after = last
    }
  })
}
