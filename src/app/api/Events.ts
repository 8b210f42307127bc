/**
 * The events of the streams, each with its name, its data and mostly an id to
 * resume after.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as AgentId from "../../AgentId.ts"
import { AgentLine, Fact } from "./Models.ts"

const event = <const Name extends string, Data extends Schema.Top>(name: Name, data: Data) =>
  Schema.Struct({
    id: Schema.optional(Schema.String),
    event: Schema.Literal(name),
    data: Schema.fromJsonString(data)
  })

const since = Schema.NullOr(Schema.Number)

/** The stream ends because the server stops: connect again in a moment. */
const stopping = event("stopping", Schema.Struct({}))

/**
 * Since when the database takes no writes, and since when what is shown may be
 * older than what the table holds.
 *
 * @category models
 * @since 0.1.0
 */
export const State = Schema.Struct({
  storeSince: since,
  /** Why it takes none, in one line. */
  storeError: Schema.NullOr(Schema.String),
  staleSince: since
})

/**
 * @category models
 * @since 0.1.0
 */
export type State = typeof State.Type

const state = event("state", State)

/**
 * All facts of an agent that is watched.
 *
 * @category models
 * @since 0.1.0
 */
export const Watched = Schema.Union([
  event("facts", Schema.Struct({ agentId: AgentId.AgentId, facts: Schema.Array(Fact), staleSince: since })),
  state,
  stopping
])

const total = Schema.Number

/**
 * Where the records of a batcher are.
 *
 * @category models
 * @since 0.1.0
 */
export const Account = Schema.Struct({
  offered: total,
  queued: total,
  pending: total,
  inFlight: total,
  written: total,
  superseded: total,
  unchanged: total,
  dropped: total,
  refused: total,
  discarded: total
})

const batches = Schema.Struct({ count: total, rows: total })

/**
 * What the server did up to a second.
 *
 * @category models
 * @since 0.1.0
 */
export const Pulse = Schema.Struct({
  at: Schema.Number,
  metadata: Account,
  stats: Account,
  /** Batches of metadata by what made them due. */
  batches: Schema.Struct({ capacity: batches, scheduled: batches, manual: batches, shutdown: batches }),
  /** How long the writes of the last 10 seconds took. */
  writeMs: Schema.Struct({
    p50: Schema.NullOr(Schema.Number),
    p95: Schema.NullOr(Schema.Number),
    count: Schema.Number
  }),
  /** The bounds of `queued` and `pending`. */
  capacity: Schema.Number,
  maxPending: Schema.Number,
  watchers: Schema.Number,
  rss: Schema.Number,
  eventLoopP99Ms: Schema.Number,
  storeSince: since,
  storeError: Schema.NullOr(Schema.String)
})

/**
 * @category models
 * @since 0.1.0
 */
export type Pulse = typeof Pulse.Type

const pulse = event("pulse", Pulse)
const history = event("history", Schema.Struct({ pulses: Schema.Array(Pulse) }))

/**
 * The server's own counters, each second.
 *
 * @category models
 * @since 0.1.0
 */
export const Pulsed = Schema.Union([history, pulse, state, stopping])

/**
 * The fleet, a line per agent.
 *
 * @category models
 * @since 0.1.0
 */
export const Overview = Schema.Union([
  event(
    "snapshot",
    Schema.Struct({ agents: Schema.Array(AgentLine), first: Schema.Boolean, last: Schema.Boolean })
  ),
  event(
    "changes",
    Schema.Struct({ agents: Schema.Array(AgentLine), removed: Schema.Array(AgentId.AgentId) })
  ),
  history,
  pulse,
  state,
  stopping
])
