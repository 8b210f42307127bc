/**
 * The demo's last word: the account of each batcher, and whether the tables
 * hold what the fleet reported.
 *
 * @since 0.1.0
 */
import type * as CliError from "effect/cli/CliError"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Accounting } from "../Batcher.ts"
import { Store, type StoreError } from "../Store.ts"
import { count } from "./DashboardLayout.ts"
import type { Fleet } from "./Fleet.ts"
import { Screen } from "./Screen.ts"
import * as UserError from "./UserError.ts"

const outcomes = [
  ...(["written", "superseded", "dropped", "discarded"] as const),
  ...(["unchanged", "refused", "queued", "pending", "inFlight"] as const)
]

const sum = (accounting: Accounting): number =>
  outcomes.reduce((total, outcome) => total + accounting[outcome], 0)

/** Where everything that was offered is now. */
const account = (metadata: Accounting, stats: Accounting): string => {
  const line = (label: string, left: number, right: number) =>
    label.padEnd(16) + count(left).padStart(12) + count(right).padStart(12)
  return [
    `${" ".repeat(20)}metadata       stats`,
    line("offered", metadata.offered, stats.offered),
    ...outcomes
      // Mostly none once a batcher has closed; else it has to be seen.
      .filter((outcome, index) => index < 4 || metadata[outcome] + stats[outcome] > 0)
      .map((outcome, index) =>
        line(`${index === 0 ? "=" : "+"} ${outcome}`, metadata[outcome], stats[outcome])
      ),
    line("in all", sum(metadata), sum(stats))
  ].join("\n")
}

const agentsPerQuery = 500

// A fact newer than ours is another simulation's: it has won, as it should.
const countStale = Effect.fnUntraced(function* (
  fleet: Fleet
): Effect.fn.Return<{ readonly keys: number; readonly stale: number }, StoreError, Store> {
  const store = yield* Store
  const reports = Array.from(fleet.lastReports())
  let keys = 0
  let stale = 0
  for (let start = 0; start < reports.length; start += agentsPerQuery) {
    const some = reports.slice(start, start + agentsPerQuery)
    const held = new Map(
      (yield* store.metadataOf(some.map(([agentId]) => agentId))).map(({ agentId, facts }) => [
        agentId,
        new Map(facts.map((fact) => [fact.key, fact]))
      ])
    )
    for (const [agentId, facts] of some) {
      for (const { collectedAt, key, value } of facts) {
        const fact = held.get(agentId)?.get(key)
        const age = (fact?.collectedAt.epochMilliseconds ?? 0) - collectedAt.epochMilliseconds
        keys += 1
        if (age < 0 || (age === 0 && fact?.value !== value)) stale += 1
      }
    }
  }
  return { keys, stale }
})

const countStats = Effect.fnUntraced(function* (
  fleet: Fleet
): Effect.fn.Return<number, SqlError, SqlClient.SqlClient> {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly rows: bigint }>`
    SELECT count(*) AS rows FROM workspace_agent_stats WHERE workspace_id = ${fleet.workspaceId}::uuid`
  return Number(rows[0]?.rows ?? 0)
})

/**
 * Prints the accounts of the closed batchers and compares the tables with the
 * fleet. Fails if anything that was accepted is missing.
 *
 * @category running
 * @since 0.1.0
 */
export const pronounce = Effect.fnUntraced(function* (
  fleet: Fleet,
  metadata: Accounting,
  stats: Accounting
): Effect.fn.Return<void, CliError.UserError, Screen | SqlClient.SqlClient | Store> {
  const screen = yield* Screen
  yield* screen.print(account(metadata, stats))

  const lost: Array<string> = []
  const discarded = metadata.discarded + stats.discarded
  if (sum(metadata) !== metadata.offered || sum(stats) !== stats.offered)
    lost.push("the account does not add up")
  if (discarded > 0) lost.push(`${count(discarded)} records were accepted and not written`)

  const check = Effect.gen(function* () {
    const { keys, stale } = yield* countStale(fleet)
    const why = metadata.dropped > 0 ? ", for newer ones were dropped" : ""
    yield* screen.print(
      `checked ${count(keys)} keys: ${stale === 0 ? "all newest" : `${count(stale)} hold an older value${why}`}`
    )
    // What was dropped was never accepted; it may have been the last of its key.
    if (stale > metadata.dropped + metadata.discarded) lost.push(`${count(stale)} keys hold an older value`)
    const rows = yield* countStats(fleet)
    yield* screen.print(
      `checked ${count(rows)} rows of statistics: ${rows === stats.written ? "all there, each once" : `${count(stats.written)} were written`}`
    )
    if (rows !== stats.written) lost.push("rows of statistics are missing or doubled")
  })
  yield* Effect.catch(check, (error) =>
    Effect.sync(() => lost.push(`the tables cannot be read: ${error.message}`))
  )
  if (lost.length > 0) return yield* UserError.make(`LOST: ${lost.join("; ")}`)
})
