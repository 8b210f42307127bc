/**
 * Keeps the tables from growing for ever: deletes old connection statistics, and
 * the facts of agents that nobody has heard of for long.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Tracer from "effect/Tracer"
import type { InvalidOptionError } from "./Batcher.ts"
import { withoutCaller } from "./internal/background.ts"
import * as Pace from "./internal/postgres/pace.ts"
import * as Retention from "./internal/postgres/retention.ts"
import * as RetentionOptions from "./internal/postgres/retentionOptions.ts"
import { sqlStateOf } from "./internal/postgres/sqlError.ts"
import * as throttledLog from "./internal/throttledLog.ts"
import * as RetentionMetrics from "./RetentionMetrics.ts"

export type { Removed } from "./internal/postgres/retention.ts"
export type { Options } from "./internal/postgres/retentionOptions.ts"

interface Pass {
  readonly table: "stats" | "metadata"
  readonly intervalMillis: number
  readonly run: Effect.Effect<Retention.Removed, SqlError>
}

/** What there is to do by these options, nothing if neither age is given. */
const makePasses = Effect.fnUntraced(function* (
  options: RetentionOptions.Options
): Effect.fn.Return<ReadonlyArray<Pass>, InvalidOptionError, PgClient.PgClient> {
  const resolved = yield* RetentionOptions.resolve(options)
  const sql = yield* PgClient.PgClient
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const metrics = RetentionMetrics.make({ prefix: resolved.metricsPrefix })
  for (const counter of [metrics.droppedPartitions, metrics.madePartitions]) counter.updateUnsafe(0, context)

  const workOn = (table: Pass["table"], name: string, ageMillis: number) => {
    const deletedRows = Metric.withAttributes(metrics.deletedRows, { table })
    const statementDuration = Metric.withAttributes(metrics.statementDuration, { table })
    deletedRows.updateUnsafe(0, context)
    return {
      sql,
      clock,
      table: name,
      ageMillis,
      pace: Pace.make({
        ...resolved,
        clock,
        onStatement: (millis) => statementDuration.updateUnsafe(millis / 1_000, context)
      }),
      observer: {
        deleted: (rows: number) => deletedRows.updateUnsafe(rows, context),
        dropped: () => metrics.droppedPartitions.updateUnsafe(1, context),
        made: (count: number) => metrics.madePartitions.updateUnsafe(count, context),
        lags: (millis: number) => metrics.lag.updateUnsafe(millis / 1_000, context)
      }
    }
  }

  const passes: Array<Pass> = []
  if (resolved.stats !== undefined) {
    const work = workOn("stats", resolved.tables.stats, resolved.stats)
    passes.push({
      table: "stats",
      intervalMillis: resolved.interval,
      run: Retention.stats({ ...work, partitionsAhead: resolved.partitionsAhead })
    })
  }
  if (resolved.agentsUnseen !== undefined) {
    passes.push({
      table: "metadata",
      intervalMillis: Math.max(resolved.interval, Math.ceil(resolved.agentsUnseen / 100)),
      run: Retention.agents(workOn("metadata", resolved.tables.metadata, resolved.agentsUnseen))
    })
  }
  return passes
})

const inSpan = ({ run, table }: Pass): Effect.Effect<Retention.Removed, SqlError> =>
  Effect.useSpan("PgRetention.pass", { root: true, attributes: { "retention.table": table } }, (span) =>
    Effect.tap(Effect.provideService(run, Tracer.ParentSpan, span), (removed) =>
      Effect.sync(() => {
        for (const [name, count] of Object.entries(removed)) span.attribute(`retention.${name}`, count)
      })
    )
  )

/** Never the message of a server's error, which may quote a row. */
const describe = (cause: Cause.Cause<SqlError>): string => {
  const failure = cause.reasons.find(Cause.isFailReason)
  if (failure === undefined) return "a defect"
  return sqlStateOf(failure.error) === undefined
    ? failure.error.reason._tag
    : `SQLSTATE ${sqlStateOf(failure.error)}`
}

const keepRunning = Effect.fnUntraced(function* (pass: Pass, metricsPrefix: string) {
  const clock = yield* Clock.Clock
  const warn = throttledLog.make(clock)
  const failures = Metric.withAttributes(RetentionMetrics.make({ prefix: metricsPrefix }).failures, {
    table: pass.table
  })
  yield* Metric.update(failures, 0)
  // Replicas that start together should not meet at every pass.
  yield* Effect.sleep(Math.floor(pass.intervalMillis * (yield* Random.next)))
  while (true) {
    const exit = yield* Effect.exit(inSpan(pass))
    if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
      yield* Metric.update(failures, 1)
      const why = describe(exit.cause)
      yield* warn(1, () => `could not delete what is too old: ${why}`, { table: pass.table })
    }
    yield* Effect.sleep(pass.intervalMillis)
  }
})

/**
 * One pass over what the options name, now: for whoever has a scheduler of their
 * own. `layer` does it again and again.
 *
 * @category running
 * @since 0.1.0
 */
export const run = (
  options: RetentionOptions.Options
): Effect.Effect<Retention.Removed, InvalidOptionError | SqlError, PgClient.PgClient> =>
  Effect.flatMap(makePasses(options), (passes) =>
    Effect.map(Effect.forEach(passes, inSpan), (removed) =>
      removed.reduce(
        (sum, next) => ({
          stats: sum.stats + next.stats,
          metadata: sum.metadata + next.metadata,
          droppedPartitions: sum.droppedPartitions + next.droppedPartitions,
          madePartitions: sum.madePartitions + next.madePartitions
        }),
        Retention.nothing
      )
    )
  )

/**
 * Starts the passes, which end with the scope. Without an age in the options
 * there are none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: RetentionOptions.Options
): Effect.Effect<void, InvalidOptionError, PgClient.PgClient | Scope.Scope> =>
  Effect.flatMap(makePasses(options), (passes) =>
    Effect.forEach(
      passes,
      (pass) => Effect.forkScoped(keepRunning(pass, options.metricsPrefix ?? "agentapi")),
      { discard: true }
    )
  ).pipe(
    // The passes outlive whoever builds the layer.
    Effect.updateContext((context: Context.Context<PgClient.PgClient | Scope.Scope>) =>
      withoutCaller(context)
    )
  )

/**
 * Deletes what is too old for as long as the application runs.
 *
 * **Details**
 *
 * Every replica may run it. Deleting goes in small statements with rests in
 * between, and each statement takes an advisory lock for its own duration, which
 * works behind a pooler too: never do two of them delete from one table at a
 * time, and a replica that finds another at it leaves it the rest of the pass.
 *
 * How old a row is, the application's clock says and the server's clock has to
 * agree, so that a replica whose clock is ahead deletes nothing that is young.
 *
 * A pass that fails is logged and counted, and the next one tries again.
 *
 * **Example** (A day of statistics, and agents that are gone for a month)
 *
 * ```ts
 * import * as PgRetention from "effect-metadata-batcher/PgRetention"
 * import * as PgClient from "@effect/sql-pg/PgClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * const RetentionLive = PgRetention.layer({ stats: "1 day", agentsUnseen: "30 days" }).pipe(
 *   Layer.provide(PgClient.layer({ url: Redacted.make("postgres://app@localhost/app") }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: RetentionOptions.Options
): Layer.Layer<never, InvalidOptionError, PgClient.PgClient> => Layer.effectDiscard(make(options))
