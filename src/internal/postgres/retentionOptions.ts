import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { InvalidOptionError } from "../options.ts"
import { count, invalid, metricName, millis } from "../options.ts"
import { tablesOf } from "./names.ts"
import { defaultAhead } from "./partitions.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Delete connection statistics this long after their `createdAt`. Off by
   * default.
   *
   * Where the table is partitioned by `created_at`, whole partitions are dropped
   * once the last of their rows is that old, and the next ones are made ahead,
   * each as wide as the newest. Another table needs an index that begins with
   * `created_at`.
   */
  readonly stats?: Duration.Input | undefined
  /**
   * Delete all facts of an agent when none of them was collected for this long.
   * Off by default. Watchers of the agent find out at their next refresh.
   */
  readonly agentsUnseen?: Duration.Input | undefined
  /**
   * Time between two passes. Default 1 minute. A pass over the agents reads the
   * whole table's key, so there the time is at least a hundredth of
   * `agentsUnseen`.
   */
  readonly interval?: Duration.Input | undefined
  /** Rows, or agents looked at, in one statement at most. Default 1,000. */
  readonly batchSize?: number | undefined
  /**
   * The share of the time that statements may take; in between is a rest.
   * Default 0.05, which deletes some 10,000 rows a second.
   */
  readonly share?: number | undefined
  /**
   * A statement that takes longer tells that the server is busy: the next ones
   * are half the size each, and the rests twice as long, until one takes less
   * than half of it. Default 20 milliseconds.
   */
  readonly maxStatementTime?: Duration.Input | undefined
  /** Partitions kept ready beyond that of the present. Default 3. */
  readonly partitionsAhead?: number | undefined
  /** The tables' schema, as `PgMigrations` takes it. */
  readonly schema?: string | undefined
  /** Default `workspace_agent_metadata`. Without `schema`, a schema goes before it with a dot. */
  readonly metadataTable?: string | undefined
  /** Default `workspace_agent_stats`. Without `schema`, a schema goes before it with a dot. */
  readonly statsTable?: string | undefined
  /** Default `"agentapi"`. */
  readonly metricsPrefix?: string | undefined
}

/** `Options` with every default filled in and durations in milliseconds. */
export interface Resolved {
  readonly stats: number | undefined
  readonly agentsUnseen: number | undefined
  readonly interval: number
  readonly batchSize: number
  readonly share: number
  readonly slowMillis: number
  readonly partitionsAhead: number
  /** As SQL text. */
  readonly tables: ReturnType<typeof tablesOf>
  readonly metricsPrefix: string
}

export const resolve = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Resolved, InvalidOptionError> {
  const { agentsUnseen, stats } = options
  return {
    stats: stats === undefined ? undefined : yield* age("stats", stats),
    agentsUnseen: agentsUnseen === undefined ? undefined : yield* age("agentsUnseen", agentsUnseen),
    interval: yield* millis("interval", options.interval ?? "1 minute", 1),
    batchSize: yield* count("batchSize", options.batchSize ?? 1_000, 1),
    share: yield* share(options.share ?? 0.05),
    slowMillis: yield* millis("maxStatementTime", options.maxStatementTime ?? "20 millis", 1),
    partitionsAhead: yield* count("partitionsAhead", options.partitionsAhead ?? defaultAhead, 0),
    tables: tablesOf(options),
    metricsPrefix: yield* metricName("metricsPrefix", options.metricsPrefix ?? "agentapi")
  }
})

// Nobody sleeps for as long as that, so it may exceed what a timer can hold.
const age = (option: string, input: Duration.Input) =>
  Effect.suspend(() => {
    const value = Duration.fromInput(input)
    const duration = value._tag === "Some" && !Number.isNaN(input) ? Duration.toMillis(value.value) : 0
    return duration >= 1 && Number.isFinite(duration)
      ? Effect.succeed(duration)
      : invalid(option, "a finite duration of at least 1 ms", input)
  })

const share = (value: number) =>
  value > 0 && value <= 1 ? Effect.succeed(value) : invalid("share", "above 0 and at most 1", value)
