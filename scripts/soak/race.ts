/**
 * Several processes, for each of which an agent's clock shows another time,
 * write the same keys into one database, and the table is compared with
 * everything they offered.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import { factsPerReport } from "../bench/workload.ts"
import type { Input, Output } from "./writer.ts"

const execute = promisify(execFile)
const writer = join(import.meta.dirname, "writer.ts")

/** How often the table is read while it is written to. */
const samplingMillis = 200

export interface Verdict {
  readonly processes: number
  readonly keys: number
  readonly offered: number
  readonly factsPerSecond: number
  readonly rowsPerSecond: number
  /** As PostgreSQL counts them, and as the writers saw them. */
  readonly deadlocks: number
  readonly failures: Readonly<Record<string, number>>
  /** Keys whose value in the end is not the newest that anyone offered. */
  readonly stale: number
  /** How often a key was seen to go back in time while the race was on. */
  readonly regressions: number
  /** Facts that the account of their process cannot place, or has given up. */
  readonly lost: number
  /** Keys that each process has won. */
  readonly won: ReadonlyArray<number>
}

const write = (input: Input): Effect.Effect<Output> =>
  Effect.promise(async () => {
    const { stdout } = await execute(process.execPath, [writer, JSON.stringify(input)], {
      maxBuffer: 1 << 28
    })
    return JSON.parse(stdout) as Output
  })

const readTable = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql<{ readonly id: string; readonly value: string; readonly at: number }>`
    SELECT workspace_agent_id || ' ' || key AS id, value,
      (extract(epoch FROM collected_at) * 1000)::float8 AS at
    FROM workspace_agent_metadata`
)

/** Runs on an empty table of the database in context. */
export const race = Effect.fnUntraced(function* (options: {
  readonly processes: number
  readonly seconds: number
  readonly agents?: number
}) {
  const { processes, seconds } = options
  const agents = options.agents ?? 200
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const sql = yield* PgClient.PgClient
  const deadlocks = Effect.map(
    sql<{ readonly count: number }>`SELECT deadlocks::int AS count FROM pg_stat_database
      WHERE datname = current_database()`,
    ([row]) => row?.count ?? Number.NaN
  )
  const deadlocksBefore = yield* deadlocks

  let regressions = 0
  const lastSeen = new Map<string, number>()
  const sampling = yield* readTable.pipe(
    Effect.flatMap((rows) =>
      Effect.sync(() => {
        for (const { at, id } of rows) {
          if (at < (lastSeen.get(id) ?? 0)) regressions++
          lastSeen.set(id, at)
        }
      })
    ),
    Effect.andThen(Effect.sleep(samplingMillis)),
    Effect.forever,
    Effect.forkChild
  )

  const outputs = yield* Effect.forEach(
    Array.from({ length: processes }, (_, process) => process),
    (process) => write({ connection: config, process, processes, seconds, agents }),
    { concurrency: "unbounded" }
  )
  yield* Fiber.interrupt(sampling)

  const newest = new Map<string, { at: number; values: Set<string> }>()
  for (const output of outputs) {
    for (const [key, at, values] of output.newest) {
      const held = newest.get(key)
      if (held === undefined || held.at < at) newest.set(key, { at, values: new Set(values) })
      else if (held.at === at) for (const value of values) held.values.add(value)
    }
  }
  const table = new Map((yield* readTable).map((row) => [row.id, row]))
  const won = new Array<number>(processes).fill(0)
  let stale = 0
  for (const [key, { at, values }] of newest) {
    const row = table.get(key)
    if (row === undefined || row.at !== at || !values.has(row.value)) stale++
    else won[Number.parseInt(row.value, 10)] = (won[Number.parseInt(row.value, 10)] ?? 0) + 1
  }

  const failures: Record<string, number> = {}
  let offered = 0
  let lost = 0
  let written = 0
  for (const { account, failures: ofWriter } of outputs) {
    offered += account.offered
    written += account.written
    lost += account.offered - account.written - account.superseded
    for (const [sqlState, count] of Object.entries(ofWriter)) {
      failures[sqlState] = (failures[sqlState] ?? 0) + count
    }
  }
  return {
    processes,
    keys: table.size,
    offered,
    factsPerSecond: offered / seconds,
    rowsPerSecond: written / seconds,
    deadlocks: (yield* deadlocks) - deadlocksBefore,
    failures,
    stale,
    regressions,
    lost,
    won
  } satisfies Verdict
})

/** What is wrong with it, nothing if all is well. */
export const faultsOf = (verdict: Verdict, agents = 200): ReadonlyArray<string> => {
  const { deadlocks, failures, keys, lost, regressions, stale, won } = verdict
  return [
    ...(keys === agents * factsPerReport ? [] : [`${keys} keys are held of ${agents * factsPerReport}`]),
    ...(deadlocks === 0 ? [] : [`${deadlocks} deadlocks`]),
    ...(Object.keys(failures).length === 0 ? [] : [`failed writes: ${JSON.stringify(failures)}`]),
    ...(stale === 0 ? [] : [`${stale} stale values`]),
    ...(regressions === 0 ? [] : [`${regressions} times a key went back in time`]),
    ...(lost === 0 ? [] : [`${lost} facts lost`]),
    // Without winners on both sides the race was none.
    ...(won.filter((count) => count > 0).length > 1 || won.length === 1 ? [] : ["one process won every key"])
  ]
}
