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
import type { MetadataBatcher } from "../MetadataBatcher.ts"
import type { StatsBatcher } from "../StatsBatcher.ts"

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
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Fleet {
  /** Marks this fleet's rows of statistics. */
  readonly workspaceId: string
  /** Reports until it is interrupted. */
  readonly run: (metadata: MetadataBatcher["Service"], stats: StatsBatcher["Service"]) => Effect.Effect<never>
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
const factsOf = (agent: number, facts: number, now: number): ReadonlyArray<Metadata> => {
  const collectedAt = DateTime.makeUnsafe(now)
  const time = DateTime.formatIso(collectedAt)
  return Array.from({ length: facts }, (_, fact) => ({
    key: names[fact] ?? `fact_${fact + 1}`,
    value: `${(agent * 31 + fact * 17 + Math.floor(now / 1000)) % 100} % at ${time}`,
    error: "",
    collectedAt
  }))
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

/** Does `each` for 0, 1, 2 and so on, `count` times per `interval`, evenly spread. */
const pace = Effect.fnUntraced(function* (
  count: number,
  interval: Duration.Duration,
  each: (turn: number, now: number) => Effect.Effect<void>
): Effect.fn.Return<never> {
  const { currentTimeMillisUnsafe } = yield* Clock.Clock
  const start = currentTimeMillisUnsafe()
  const perMilli = count / Duration.toMillis(interval)
  let turn = 0
  while (true) {
    const now = currentTimeMillisUnsafe()
    const due = Math.floor((now - start) * perMilli)
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
    run: (metadata, stats) => {
      const report = (turn: number, now: number) =>
        Effect.suspend(() => {
          const agent = turn % options.agents
          const agentId = agentIds[agent] as AgentId
          const facts = factsOf(agent, options.facts, now)
          lastReports.set(agentId, facts)
          return traced(metadata.add(agentId, facts), agentId)
        })
      const reportStats = (turn: number, now: number) =>
        Effect.suspend(() => {
          const agentId = agentIds[turn % options.agents] as AgentId
          const round = Math.floor(turn / options.agents)
          return traced(stats.add(statsOf(workspaceId, agentId, round, now)), agentId)
        })
      return Effect.raceFirst(
        pace(options.agents, options.interval, report),
        pace(options.agents, options.statsInterval, reportStats)
      )
    }
  }
}
