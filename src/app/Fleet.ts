/**
 * A simulated fleet: agents that report facts and connection statistics at a
 * steady pace, and a memory of the last report of each, to compare the table
 * with.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { AgentId } from "../AgentId.ts"
import type { AgentStats } from "../AgentStats.ts"
import type { Metadata } from "../Metadata.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly agents: number
  /** Facts per report. */
  readonly facts: number
  /** Time between two reports of one agent. */
  readonly interval: Duration.Duration
  /** Time between two reports of one agent's connections. */
  readonly statsInterval: Duration.Duration
  /** All agents report at the same moment, once per interval, instead of evenly spread. */
  readonly bursts?: boolean | undefined
  /** Share of the facts that carry an error instead of a value. */
  readonly badShare?: number | undefined
  /** Share of the facts whose value is that of the report before. */
  readonly unchangedShare?: number | undefined
}

/**
 * Where reports go.
 *
 * @category models
 * @since 0.1.0
 */
export interface Destination {
  readonly metadata: (agentId: AgentId, facts: ReadonlyArray<Metadata>) => Effect.Effect<void>
  readonly stats: (stats: AgentStats) => Effect.Effect<void>
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Fleet {
  /** Marks this fleet's rows of statistics. */
  readonly workspaceId: string
  /** Reports until it is interrupted. */
  readonly run: (destination: Destination) => Effect.Effect<never>
  /** The last report of every agent that has made one. */
  /** Every agent, whether it has reported or not. */
  readonly agentIds: ReadonlyArray<AgentId>
  readonly lastReports: () => ReadonlyMap<AgentId, ReadonlyArray<Metadata>>
}

const names = [
  "cpu",
  "memory",
  "disk",
  "load",
  "processes",
  "sessions",
  "rx_rate",
  "tx_rate",
  "latency",
  "swap"
]

// The same agents in every run: two simulations of one database are two
// replicas that race for the same rows, and a hundred leave no more of them
// behind than one.
const agentIdOf = (agent: number): AgentId =>
  AgentId.make(`00000000-0000-4000-8000-${agent.toString(16).padStart(12, "0")}`)

// A value says when it was collected, so that it is the same from whichever
// replica if the times are.
const factsOf = (
  { badShare = 0, facts, unchangedShare = 0 }: Options,
  agent: number,
  now: number,
  before: ReadonlyArray<Metadata> | undefined
): ReadonlyArray<Metadata> => {
  const collectedAt = DateTime.makeUnsafe(now)
  const time = DateTime.formatIso(collectedAt)
  return Array.from({ length: facts }, (_, fact) => {
    const key = names[fact] ?? `fact_${fact + 1}`
    if (badShare > 0 && Math.random() < badShare) {
      return { key, value: "", error: `the sensor did not answer at ${time}`, collectedAt }
    }
    const last = before?.[fact]
    if (last !== undefined && unchangedShare > 0 && Math.random() < unchangedShare) {
      return { ...last, collectedAt }
    }
    const value = `${(agent * 31 + fact * 17 + Math.floor(now / 1000)) % 100} % at ${time}`
    return { key, value, error: "", collectedAt }
  })
}

const statsOf = (workspaceId: string, agentId: AgentId, round: number, now: number): AgentStats => {
  const traffic = BigInt(round + 1)
  return {
    createdAt: DateTime.makeUnsafe(now),
    agentId,
    userId: workspaceId,
    templateId: workspaceId,
    workspaceId,
    connectionsByProto: { ssh: 1, vscode: 2 },
    connectionCount: 3n,
    rxPackets: traffic * 40n,
    rxBytes: traffic * 31_000n,
    txPackets: traffic * 60n,
    txBytes: traffic * 52_000n,
    sessionCountVSCode: 2n,
    sessionCountJetBrains: 0n,
    sessionCountReconnectingPTY: 0n,
    sessionCountSSH: 1n,
    connectionMedianLatencyMs: 20 + (round % 10)
  }
}

/** Does `each` for 0, 1, 2 and so on, `count` times per `interval`, evenly spread or all at once. */
const pace = Effect.fnUntraced(function* (
  count: number,
  interval: Duration.Duration,
  bursts: boolean,
  each: (turn: number, now: number) => Effect.Effect<void>
): Effect.fn.Return<never> {
  const { currentTimeMillisUnsafe } = yield* Clock.Clock
  const start = currentTimeMillisUnsafe()
  const perMilli = count / Duration.toMillis(interval)
  let turn = 0
  while (true) {
    const now = currentTimeMillisUnsafe()
    const steadily = Math.floor((now - start) * perMilli)
    const due = bursts ? count * (1 + Math.floor(steadily / count)) : steadily
    // Nobody makes up for what was missed while the machine was suspended.
    turn = Math.max(turn, due - count)
    for (; turn < due; turn++) yield* each(turn, now)
    yield* Effect.sleep("10 millis")
  }
})

// A span per report, for its flush to link to; without a tracer, none.
const traced = (report: Effect.Effect<void>, agentId: AgentId): Effect.Effect<void> =>
  Effect.withFiber(({ cache }) =>
    cache.tracer === undefined
      ? report
      : Effect.withSpan(report, "AgentReport", {
          kind: "server",
          root: true,
          captureStackTrace: false,
          attributes: { "agent.id": agentId }
        })
  )

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Fleet => {
  const workspaceId = globalThis.crypto.randomUUID()
  const agentIds = Array.from({ length: options.agents }, (_, agent) => agentIdOf(agent))
  const lastReports = new Map<AgentId, ReadonlyArray<Metadata>>()

  return {
    workspaceId,
    agentIds,
    lastReports: () => lastReports,
    run: (destination) => {
      const report = (turn: number, now: number) =>
        Effect.suspend(() => {
          const agent = turn % options.agents
          const agentId = agentIds[agent] as AgentId
          const facts = factsOf(options, agent, now, lastReports.get(agentId))
          lastReports.set(agentId, facts)
          return traced(destination.metadata(agentId, facts), agentId)
        })
      const reportStats = (turn: number, now: number) =>
        Effect.suspend(() => {
          const agentId = agentIds[turn % options.agents] as AgentId
          const round = Math.floor(turn / options.agents)
          return traced(destination.stats(statsOf(workspaceId, agentId, round, now)), agentId)
        })
      return Effect.raceFirst(
        pace(options.agents, options.interval, options.bursts ?? false, report),
        pace(options.agents, options.statsInterval, false, reportStats)
      )
    }
  }
}
