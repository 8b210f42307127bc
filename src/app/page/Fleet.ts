/**
 * All agents, a line each: which there are, in what state, which of them are
 * wanted, in what order.
 *
 * @since 0.1.0
 */
import type { Changes, Line, Snapshot } from "./Wire.ts"

/** What state an agent can be in, the one that needs attention most first. */
export const states = ["errors", "silent", "late", "fresh"] as const

/** An agent's state. */
export type AgentState = (typeof states)[number]

/** How states are called on the page. */
export const stateNames: { readonly [State in AgentState]: string } = {
  errors: "With errors",
  silent: "Silent",
  late: "Late",
  fresh: "Fresh"
}

/** Milliseconds without a report after which an agent is late, and silent. */
export const lateAfter = 30_000
export const silentAfter = 120_000

/** Errors of an agent that has fallen silent are old news: it counts as silent. */
export const stateOf = (line: Line, now: number): AgentState => {
  const age = now - line.lastCollectedAt
  if (age >= silentAfter) return "silent"
  if (line.errors > 0) return "errors"
  return age >= lateAfter ? "late" : "fresh"
}

type Order = (a: Line, b: Line, now: number) => number

const byId: Order = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

const orders = {
  id: byId,
  attention: (a, b, now) => states.indexOf(stateOf(a, now)) - states.indexOf(stateOf(b, now)),
  newest: (a, b) => b.lastCollectedAt - a.lastCollectedAt,
  oldest: (a, b) => a.lastCollectedAt - b.lastCollectedAt,
  facts: (a, b) => b.facts - a.facts
} satisfies Record<string, Order>

/** The names of the orders. */
export type Sort = keyof typeof orders

/** Whether a name is that of an order. */
export const isSort = (name: string): name is Sort => Object.hasOwn(orders, name)

/** What the viewer wants to see. */
export interface Wanted {
  readonly search: string
  readonly state: AgentState | "all"
  readonly sort: Sort
}

export type Counts = { readonly [State in AgentState | "all"]: number }

/** Ids are found with and without hyphens, in either case. */
const bare = (text: string): string => text.toLowerCase().replace(/[-\s]/g, "")

export class Fleet {
  /** The lines by agent. */
  lines: ReadonlyMap<string, Line> = new Map()
  /** Whether the whole fleet has been told once. */
  complete = false
  private arriving = new Map<string, Line>()

  /** A snapshot in parts is shown once it is whole. */
  snapshot(snapshot: Snapshot): void {
    if (snapshot.first) this.arriving = new Map()
    for (const line of snapshot.agents) this.arriving.set(line.id, line)
    if (!snapshot.last) return
    this.lines = this.arriving
    this.complete = true
  }

  changes(changes: Changes): void {
    for (const line of changes.agents) this.arriving.set(line.id, line)
    for (const id of changes.removed) this.arriving.delete(id)
  }

  counts(now: number): Counts {
    const counts = { all: this.lines.size, errors: 0, silent: 0, late: 0, fresh: 0 }
    for (const line of this.lines.values()) counts[stateOf(line, now)] += 1
    return counts
  }

  select({ search, state, sort }: Wanted, now: number): ReadonlyArray<Line> {
    const needle = bare(search)
    const found = [...this.lines.values()].filter(
      (line) =>
        (needle === "" || bare(line.id).includes(needle)) && (state === "all" || stateOf(line, now) === state)
    )
    return found.sort((a, b) => orders[sort](a, b, now) || byId(a, b, now))
  }
}
