/** Compares from outside: what was accepted, what the table holds, and what each watcher shows. */
import { type Fleet, valueOf } from "./fleet.ts"
import type { Watcher } from "./watcher.ts"

export interface Row {
  readonly agentId: string
  readonly key: string
  readonly value: string
  /** Milliseconds since 1970. */
  readonly at: number
}

/** Facts that were accepted by a replica that runs or ended well, and are not in the table; and values that nobody reported. */
export const lost = (fleet: Fleet, table: ReadonlyArray<Row>): ReadonlyArray<string> => {
  const faults: Array<string> = []
  const held = new Map<string, number>()
  for (const { agentId, at, key, value } of table) {
    held.set(agentId, Math.min(held.get(agentId) ?? Number.POSITIVE_INFINITY, at))
    if (value !== valueOf(agentId, key, at)) faults.push(`${agentId} ${key} has the value of another report`)
  }
  for (const [agentId, at] of fleet.owed()) {
    if (at > 0 && (held.get(agentId) ?? 0) < at) faults.push(`${agentId}: a report that was accepted is lost`)
  }
  return faults
}

/** Agents of which a watcher does not show what the table holds. */
export const stale = (watcher: Watcher, table: ReadonlyArray<Row>): ReadonlyArray<string> => {
  const rows = new Map<string, Map<string, string>>()
  for (const { agentId, key, value } of table) {
    if (!watcher.agentIds.has(agentId)) continue
    const facts = rows.get(agentId) ?? new Map<string, string>()
    rows.set(agentId, facts.set(key, value))
  }
  return Array.from(rows)
    .filter(([agentId, facts]) => {
      const shown = watcher.shown().get(agentId)
      return shown?.size !== facts.size || Array.from(facts).some(([key, value]) => shown.get(key) !== value)
    })
    .map(([agentId]) => `a watcher of ${watcher.replica} does not show what the table holds of ${agentId}`)
}
