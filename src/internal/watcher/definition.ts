import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Option from "effect/Option"
import type { AgentId } from "../../AgentId.ts"
import type { Metadata } from "../../Metadata.ts"

/**
 * What a watcher is shown of an agent: its facts as the store held them when
 * they were last read. It is a value and never changes; the next state is
 * another `View`.
 *
 * @category models
 * @since 0.1.0
 */
export interface View {
  readonly agentId: AgentId
  /** The agent's facts, sorted by key; empty if the store holds none, or if none could be read yet. */
  readonly facts: ReadonlyArray<Metadata>
  /**
   * `undefined` while the last read succeeded. Otherwise the time of the first
   * read since then that failed: the facts may be older than what the store
   * holds.
   */
  readonly staleSince: DateTime.Utc | undefined
}

/**
 * Some agents changed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Changed {
  readonly _tag: "Changed"
  /** Each agent once. */
  readonly agentIds: ReadonlyArray<AgentId>
}

/**
 * Changes may have been missed: whatever depends on them has to be read anew.
 *
 * @category models
 * @since 0.1.0
 */
export interface Resync {
  readonly _tag: "Resync"
}

/**
 * An element of `changes`.
 *
 * @category models
 * @since 0.1.0
 */
export type Change = Changed | Resync

/**
 * What a watcher is doing.
 *
 * @category models
 * @since 0.1.0
 */
export interface WatcherStatus {
  /** Streams of `watch` that are running. */
  readonly watchers: number
  /** Agents that they watch. */
  readonly agents: number
  /**
   * Whether changes are announced to it. `false` until the pubsub was reached
   * for the first time; from then on a connection that is lost is the pubsub's
   * to restore, which is followed by a `Resync`.
   */
  readonly subscribed: boolean
  /** Since when some watched agent could not be read; none if all could. */
  readonly staleSince: Option.Option<DateTime.Utc>
}

/**
 * Settings of a `MetadataWatcher`. Each is checked when it is made; nonsense is
 * an `InvalidOptionError`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The least time between the beginnings of two rounds of reading. Default 250
   * ms: four times a second is as often as people can follow.
   */
  readonly minInterval?: Duration.Input | undefined
  /**
   * Every watched agent is read at least this often, announced or not, so that
   * an announcement lost without a trace is made good. Default 30 seconds; at
   * least `minInterval`.
   */
  readonly refreshInterval?: Duration.Input | undefined
  /**
   * Statements under way at once, and so the most connections of the
   * application's pool that reading takes. Default 1. More help only where
   * more than 2,000 agents, which is what one statement reads, change at once.
   */
  readonly readConcurrency?: number | undefined
  /** Where changes are announced. Default `metadataBatchChannel`. */
  readonly channel?: string | undefined
  /** Prefix of the metric names. Default `"agentapi"`. Of two watchers in a process each needs its own. */
  readonly metricsPrefix?: string | undefined
}
