/**
 * The limit: newest-wins over nested native `Map`s and the columns of a batch,
 * with nothing around it. The contestants that dedupe only as they write use it
 * for that, so that none pays more than it must.
 */
import type { AgentId } from "../../src/AgentId.ts"
import type { Metadata, MetadataBatch } from "../../src/Metadata.ts"
import type { Report } from "./workload.ts"

export class NewestWins {
  size = 0
  private agents = new Map<AgentId, Map<string, Metadata>>()

  add({ agentId, facts }: Report): void {
    let held = this.agents.get(agentId)
    if (held === undefined) {
      held = new Map()
      this.agents.set(agentId, held)
    }
    const before = held.size
    for (const fact of facts) {
      const old = held.get(fact.key)
      if (old === undefined || fact.collectedAt.epochMilliseconds >= old.collectedAt.epochMilliseconds) {
        held.set(fact.key, fact)
      }
    }
    this.size += held.size - before
  }

  take(): MetadataBatch {
    const columns = new Columns(this.size)
    for (const [agentId, facts] of this.agents) {
      for (const fact of facts.values()) columns.add(agentId, fact)
    }
    this.agents = new Map()
    this.size = 0
    return columns
  }
}

/** A batch of a size known beforehand. */
export class Columns implements MetadataBatch {
  readonly agentIds: Array<AgentId>
  readonly keys: Array<string>
  readonly values: Array<string>
  readonly errors: Array<string>
  readonly collectedAt: Array<number>
  private size = 0

  constructor(size: number) {
    this.agentIds = new Array(size)
    this.keys = new Array(size)
    this.values = new Array(size)
    this.errors = new Array(size)
    this.collectedAt = new Array(size)
  }

  add(agentId: AgentId, fact: Metadata): void {
    const row = this.size++
    this.agentIds[row] = agentId
    this.keys[row] = fact.key
    this.values[row] = fact.value
    this.errors[row] = fact.error
    this.collectedAt[row] = fact.collectedAt.epochMilliseconds
  }
}

/** The columns of these reports, a key once. */
export const dedupe = (reports: Iterable<Report>): MetadataBatch => {
  const fold = new NewestWins()
  for (const report of reports) fold.add(report)
  return fold.take()
}

/** The columns of these reports, a key as often as it was reported. */
export const columns = (reports: ReadonlyArray<Report>): MetadataBatch => {
  const batch = new Columns(reports.reduce((size, { facts }) => size + facts.length, 0))
  for (const { agentId, facts } of reports) {
    for (const fact of facts) batch.add(agentId, fact)
  }
  return batch
}
