/**
 * What every contestant is given: reports of ten facts, made beforehand and
 * given over and over, so that neither making them nor fetching them from
 * memory is a part of any figure.
 */
import * as DateTime from "effect/DateTime"
import type { AgentId } from "../../src/AgentId.ts"
import type { Metadata } from "../../src/Metadata.ts"

export interface Report {
  readonly agentId: AgentId
  readonly facts: ReadonlyArray<Metadata>
}

export interface Workload {
  readonly agents: number
  /** How often each agent reports before the reports are given again. */
  readonly rounds: number
  readonly facts: number
  /** Facts (or distinct keys, for who dedupes before the write) to a write. */
  readonly batchSize: number
  /** Flush by time alone: those with no bound on their buffer ignore `batchSize`. */
  readonly timerOnly: boolean
  /** Milliseconds. */
  readonly interval: number
  /** One set of facts for all agents, where there are so many that collecting the garbage around them would show. */
  readonly shareFacts?: boolean | undefined
}

export const factsPerReport = 10

/** Facts a bounded buffer holds. */
export const capacity = 2_500

/** Reports a producer adds before it lets the event loop turn: what a bounded buffer takes at once. */
export const stride = 200

/** Every report is of other agents than the ones around it, so that all are written. */
export const w1: Workload = {
  agents: 2_000,
  rounds: 2,
  facts: 2_000_000,
  batchSize: 500,
  timerOnly: false,
  interval: 5_000
}

/** Few agents that report over and over, so that nearly all is superseded. */
export const w2: Workload = {
  agents: 40,
  rounds: 25,
  facts: 2_000_000,
  batchSize: 500,
  timerOnly: true,
  interval: 50
}

/** Flat strings, as decoding leaves them; one put together from parts is slower to hash. */
const decoded = (texts: ReadonlyArray<string>): ReadonlyArray<string> => JSON.parse(JSON.stringify(texts))

const keys = decoded(Array.from({ length: factsPerReport }, (_, i) => `metadata_key_${i}`))
/** When the first facts were collected. */
export const epoch = Date.UTC(2026, 0, 1)

export const agentIds = (count: number): ReadonlyArray<AgentId> =>
  decoded(
    Array.from({ length: count }, (_, i) => {
      // Spread over the whole range, as random UUIDs are, but the same in every process.
      const hex = (BigInt(i + 1) * 0x9e3779b97f4a7c15f39cc0605cedc834n) % (1n << 128n)
      const digits = hex.toString(16).padStart(32, "0")
      return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")
    })
  ) as ReadonlyArray<AgentId>

export const reportOf = (agentId: AgentId, round: number, at: number): Report => {
  const collectedAt = DateTime.makeUnsafe(epoch + at)
  const value = `value ${round}`
  return { agentId, facts: keys.map((key) => ({ key, value, error: "", collectedAt })) }
}

/** What every agent reports in `rounds` rounds, agent by agent, round by round. */
export const makeReports = (
  { agents, rounds, shareFacts = false }: Pick<Workload, "agents" | "rounds" | "shareFacts">,
  /**
   * Milliseconds since the epoch of the workload at which a round's facts were
   * collected. By default all at once: each then replaces the one before,
   * however often the same rounds are given.
   */
  collectedAt: (round: number) => number = () => 0
): ReadonlyArray<Report> => {
  const ids = agentIds(agents)
  return Array.from({ length: rounds }, (_, round) => {
    const make = (agentId: AgentId) => reportOf(agentId, round, collectedAt(round))
    const [first] = ids.slice(0, 1).map(make)
    return ids.map((agentId) => (shareFacts && first !== undefined ? { ...first, agentId } : make(agentId)))
  }).flat()
}

/** The i-th of the reports given over and over. */
export const reportAt = (reports: ReadonlyArray<Report>, i: number): Report =>
  reports[i % reports.length] as Report

/** Lets timers and fibers run. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
