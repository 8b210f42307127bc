/**
 * What requests and answers hold. All times are milliseconds since the epoch.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as AgentId from "../../AgentId.ts"

/** The last millisecond of the year 9999: later ones are no times but mistakes. */
const maxTime = 253_402_300_799_999

const time = Schema.Int.check(
  Schema.isBetween(
    { minimum: 0, maximum: maxTime },
    { expected: "milliseconds since the epoch, before the year 10000" }
  )
)

const withoutNul = Schema.isPattern(/^[^\0]*$/, { expected: "text without NUL" })
const text = Schema.String.check(withoutNul)

/** Longer keys do not fit the table, whose column is a `varchar(127)`. */
const maxKeyLength = 127

const key = Schema.String.check(
  withoutNul,
  Schema.isPattern(/\S/, { expected: "a key that is not blank" }),
  Schema.isMaxLength(maxKeyLength, { expected: `a key of at most ${maxKeyLength} characters` })
)

/**
 * A fact as an agent reports it.
 *
 * @category models
 * @since 0.1.0
 */
export const ReportedFact = Schema.Struct({
  key,
  /** What was read. Over 2,048 bytes it is cut, and `error` says so. */
  value: Schema.optionalKey(text),
  /** Why it could not be read. */
  error: Schema.optionalKey(text),
  /** When the agent read it. Counts only in a request with `?time=agent`. */
  collectedAt: Schema.optionalKey(time)
})

/**
 * @category models
 * @since 0.1.0
 */
export type ReportedFact = typeof ReportedFact.Type

/**
 * Whose time a fact carries.
 *
 * @category models
 * @since 0.1.0
 */
export const TimeOf = Schema.Literals(["server", "agent"])

/**
 * The facts of one report.
 *
 * @category models
 * @since 0.1.0
 */
export const Report = Schema.Struct({ facts: Schema.Array(ReportedFact) })

/**
 * Reports of several agents in one request.
 *
 * @category models
 * @since 0.1.0
 */
export const Reports = Schema.Struct({
  agents: Schema.Array(Schema.Struct({ agentId: AgentId.AgentId, facts: Schema.Array(ReportedFact) }))
})

/**
 * How many facts, or reports, were taken.
 *
 * @category models
 * @since 0.1.0
 */
export const Accepted = Schema.Struct({ accepted: Schema.Int, dropped: Schema.Int }).annotate({
  httpApiStatus: 202
})

const uuid = Schema.String.check(Schema.isGUID({ expected: "a UUID" }))

const maxCount = 2n ** 63n - 1n

// A JSON number where it is exact, else its digits in a string.
const count = Schema.Union([
  Schema.Int.check(
    Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }, { expected: "a whole number" })
  ),
  Schema.String.check(
    Schema.isPattern(/^\d{1,19}$/, { expected: "a whole number" }),
    Schema.makeFilter((digits) => BigInt(digits) <= maxCount, { expected: "a number below 2^63" })
  )
])

const optionalCount = Schema.optionalKey(count)

/**
 * One report of an agent's connections. Its id makes a repeated request harmless.
 *
 * @category models
 * @since 0.1.0
 */
export const ReportedStats = Schema.Struct({
  id: uuid,
  createdAt: Schema.optionalKey(time),
  userId: uuid,
  templateId: uuid,
  workspaceId: uuid,
  connectionsByProto: Schema.optionalKey(
    Schema.Record(
      Schema.String.check(withoutNul, Schema.isMaxLength(64)),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }))
    ).check(Schema.isMaxProperties(64))
  ),
  connectionCount: optionalCount,
  rxPackets: optionalCount,
  rxBytes: optionalCount,
  txPackets: optionalCount,
  txBytes: optionalCount,
  sessionCountVSCode: optionalCount,
  sessionCountJetBrains: optionalCount,
  sessionCountReconnectingPTY: optionalCount,
  sessionCountSSH: optionalCount,
  /** Milliseconds; -1 is "not measured". */
  connectionMedianLatencyMs: Schema.optionalKey(
    Schema.Finite.check(Schema.isBetween({ minimum: -1, maximum: 1e9 }))
  )
})

/**
 * @category models
 * @since 0.1.0
 */
export type ReportedStats = typeof ReportedStats.Type

/**
 * @category models
 * @since 0.1.0
 */
export const StatsReports = Schema.Struct({ reports: Schema.Array(ReportedStats) })

/**
 * A fact as the table holds it.
 *
 * @category models
 * @since 0.1.0
 */
export const Fact = Schema.Struct({
  key: Schema.String,
  value: Schema.String,
  error: Schema.String,
  collectedAt: Schema.Number
})

/**
 * @category models
 * @since 0.1.0
 */
export const AgentFacts = Schema.Struct({ agentId: AgentId.AgentId, facts: Schema.Array(Fact) })

/**
 * An agent in a line: how many facts it has, how many of them are errors, and
 * the time of the newest.
 *
 * @category models
 * @since 0.1.0
 */
export const AgentLine = Schema.Struct({
  id: AgentId.AgentId,
  facts: Schema.Int,
  errors: Schema.Int,
  lastCollectedAt: Schema.Number
})

/**
 * @category models
 * @since 0.1.0
 */
export type AgentLine = typeof AgentLine.Type

/**
 * A page of agents, in the order of their ids. `next` is what to send as
 * `after`, or null at the end.
 *
 * @category models
 * @since 0.1.0
 */
export const AgentPage = Schema.Struct({
  agents: Schema.Array(AgentLine),
  next: Schema.NullOr(AgentId.AgentId)
})

/**
 * How many facts went with the agent.
 *
 * @category models
 * @since 0.1.0
 */
export const Deleted = Schema.Struct({ deleted: Schema.Int })

/**
 * What a token allows. An agent writes what its token's agent reports, a reader
 * reads, an operator does both for all agents and deletes.
 *
 * @category models
 * @since 0.1.0
 */
export const Role = Schema.Literals(["agent", "reader", "operator"])

/**
 * @category models
 * @since 0.1.0
 */
export type Role = typeof Role.Type

/**
 * What a page has to know before it asks for anything else.
 *
 * @category models
 * @since 0.1.0
 */
export const Session = Schema.Struct({
  /** Whether requests need a token. */
  tokens: Schema.Boolean,
  /** What the token that was sent allows; null without one where one is needed. */
  role: Schema.NullOr(Role),
  agentId: Schema.NullOr(AgentId.AgentId),
  version: Schema.String,
  /** The default pause between two events of one agent. */
  minIntervalMs: Schema.Number,
  /** The longest that a fact waits for its batch. */
  flushIntervalMs: Schema.Number,
  startedAt: Schema.Number
})
