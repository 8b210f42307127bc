/**
 * A `Store` in memory whose writes a test can hold, answer and let suffer, and
 * which keeps the log by which a batcher is judged.
 *
 * What it refuses, finds locked or takes for too large is said by rules, because
 * a batcher may ask for the same rows in many statements.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { AgentStatsRow } from "../../src/AgentStats.ts"
import type { MetadataBatch } from "../../src/Metadata.ts"
import * as Store from "../../src/Store.ts"
import { identify, type Row, toRows } from "./Facts.ts"
import * as Script from "./Script.ts"

/** What the store does about rows, whatever the statement they come in. */
export interface Rules {
  /** Refuses this row; what is given is why. */
  readonly refuses?: ((row: Row) => string | undefined) | undefined
  /**
   * What the store tells of rows it refuses: nothing, and nothing is written; or
   * which, and the others are written.
   */
  readonly tells?: "nothing" | "names" | undefined
  /** A statement with such a row gets no answer. */
  readonly locks?: ((row: Row) => boolean) | undefined
  /** A statement of more rows is canceled, or is not answered in time. */
  readonly maxRows?: { readonly rows: number; readonly by: "cancel" | "silence" } | undefined
}

export interface FakeStore {
  readonly store: Store.Store["Service"]
  readonly writes: Script.Script<MetadataBatch, Store.WriteResult, Store.StoreError>
  readonly statsWrites: Script.Script<ReadonlyArray<AgentStatsRow>, Store.WriteResult, Store.StoreError>
  readonly rule: (rules: Rules) => void
  /** Every row that reached the table, in the order it did, stale ones included. */
  readonly applied: ReadonlyArray<Row>
  /** What a reader finds: the newest row per agent and key. */
  readonly held: ReadonlyMap<string, Row>
  /** Every report that was appended. */
  readonly stats: Effect.Effect<ReadonlyArray<AgentStatsRow>>
}

export const make = Effect.fnUntraced(function* (options: {
  /** Where is written down what no batcher may do. */
  readonly violations: Array<string>
  readonly maxBatchSize?: number | undefined
  readonly writeConcurrency?: number | undefined
  /** Is told of the rows that reached the table. */
  readonly onApplied?: ((rows: ReadonlyArray<Row>) => void) | undefined
}): Effect.fn.Return<FakeStore> {
  const { maxBatchSize = 500, onApplied, violations, writeConcurrency = 1 } = options
  const memory = yield* Store.makeMemory
  const applied: Array<Row> = []
  const held = new Map<string, Row>()
  const underWay = new Set<Script.Call<unknown>>()
  let rules: Rules = {}

  const watch = (call: Script.Call<unknown>, size: number): void => {
    for (const other of underWay) if (other.outcome !== "running" || other.isGivenUp()) underWay.delete(other)
    if (underWay.size >= writeConcurrency)
      violations.push(`more than ${writeConcurrency} writes at ${call.startedAt}`)
    if (size === 0 || size > maxBatchSize) violations.push(`a statement of ${size} rows`)
    underWay.add(call)
  }

  const apply = (rows: ReadonlyArray<Row>, notThese: ReadonlyArray<Store.Refusal>): void => {
    const isRefused = new Set(notThese.map(({ position }) => position))
    const written = rows.filter((_, position) => !isRefused.has(position))
    for (const row of written) {
      applied.push(row)
      const before = held.get(identify(row))
      if (before === undefined || before.collectedAt <= row.collectedAt) held.set(identify(row), row)
    }
    onApplied?.(written)
  }

  /** Writes the rows at these positions, as PostgreSQL would. */
  const write = (batch: MetadataBatch, positions: ReadonlyArray<number>) => {
    const pick = <A>(column: ReadonlyArray<A>) => positions.map((position) => column[position] as A)
    const part: MetadataBatch = {
      agentIds: pick(batch.agentIds),
      keys: pick(batch.keys),
      values: pick(batch.values),
      errors: pick(batch.errors),
      collectedAt: pick(batch.collectedAt)
    }
    return Effect.map(memory.store.batchUpdateMetadata(part), (result) => {
      apply(toRows(part), result.refused)
      return {
        ...result,
        superseded: result.superseded.map((position) => positions[position] as number),
        refused: result.refused.map((one) => ({ ...one, position: positions[one.position] as number }))
      }
    })
  }

  const work = (batch: MetadataBatch): Effect.Effect<Store.WriteResult, Store.StoreError> => {
    const rows = toRows(batch)
    const { locks, maxRows, refuses, tells } = rules
    if (maxRows !== undefined && rows.length > maxRows.rows) {
      const timeout = new Error("canceling statement due to statement timeout")
      return maxRows.by === "cancel" ? Effect.fail(Store.canceled(timeout)) : Effect.never
    }
    if (locks !== undefined && rows.some(locks)) return Effect.never
    const refused: ReadonlyArray<Store.Refusal> =
      refuses === undefined
        ? []
        : rows.flatMap((row, position) => {
            const why = refuses(row)
            return why === undefined ? [] : [{ position, why }]
          })
    const [first] = refused
    if (first !== undefined && (tells !== "names" || refused.length === rows.length)) {
      return Effect.fail(Store.rejected(new Error(first.why)))
    }
    const isRefused = new Set(refused.map(({ position }) => position))
    const positions = rows.map((_, position) => position).filter((position) => !isRefused.has(position))
    return Effect.map(write(batch, positions), (result) => ({
      ...result,
      refused: result.refused.concat(refused)
    }))
  }

  const failure = (reason: "Unavailable" | "Canceled" | "Rejected", cause: Error) =>
    ({ Unavailable: Store.unavailable, Canceled: Store.canceled, Rejected: Store.rejected })[reason](cause)

  const writes = yield* Script.make<MetadataBatch, Store.WriteResult, Store.StoreError>({
    work,
    fail: failure,
    given: (batch, answer) => {
      if (!Predicate.hasProperty(answer, "changed")) return undefined
      const result = answer as unknown as Store.WriteResult
      apply(toRows(batch), result.refused)
      return result
    },
    onCall: (call) => {
      const rows = toRows(call.request)
      watch(call, rows.length)
      if (new Set(rows.map(identify)).size < rows.length) violations.push("a key twice in one statement")
      const { collectedAt, errors, keys, values } = call.request
      if ([keys, values, errors, collectedAt].some(({ length }) => length !== rows.length)) {
        violations.push("columns of unequal length")
      }
    }
  })
  const statsWrites = yield* Script.make<ReadonlyArray<AgentStatsRow>, Store.WriteResult, Store.StoreError>({
    work: memory.store.batchInsertStats,
    given: (_, answer) =>
      Predicate.hasProperty(answer, "changed") ? (answer as unknown as Store.WriteResult) : undefined,
    fail: failure,
    onCall: (call) => watch(call, call.request.length)
  })

  return {
    store: Store.Store.of({
      ...memory.store,
      batchUpdateMetadata: writes.run,
      batchInsertStats: statsWrites.run
    }),
    writes,
    statsWrites,
    rule: (next) => {
      rules = next
    },
    applied,
    held,
    stats: memory.stats
  }
})

/** Refuses values that begin with this. */
export const poison = (value: string): string => `poison ${value}`

export const isPoison = (value: unknown): boolean => typeof value === "string" && value.startsWith("poison ")

/** The rule of a store whose constraint no poisoned value passes. */
export const refusesPoison =
  (why = "constraint violated") =>
  ({ value }: Row): string | undefined =>
    isPoison(value) ? why : undefined

/** The answer of a store that refused the rows at these positions of so many, and wrote the others. */
export const refusing = (count: number, positions: ReadonlyArray<number>): Store.WriteResult => ({
  ...Store.allChanged(count - positions.length),
  refused: positions.map((position) => ({ position, why: "refused by the test" }))
})
