import type * as DateTime from "effect/DateTime"
import type { AgentId } from "../../AgentId.ts"
import type { Metadata } from "../../Metadata.ts"
import type { View } from "./definition.ts"
import * as Facts from "./facts.ts"
import type { Mailbox } from "./mailbox.ts"

/**
 * What is held of one watched agent, for all who watch it: all its facts, also
 * if every watcher asks for some keys only. Whoever comes next can then be shown
 * them at once. Reading costs 2 µs of CPU a fact.
 */
export interface Cell {
  readonly agentId: AgentId
  /** `undefined` until the agent has been read, or could not be. */
  view: View | undefined
  /** When the last read of it began, as the monotonic clock has it. */
  readAt: number
  /** Those who watch it. */
  readonly watchers: Set<Mailbox>
}

/** The agents that are watched, by whom, and which of them have to be read. */
export interface Cells {
  readonly size: () => number
  readonly watchers: () => number
  /** Joins those who watch the agent. One that nobody watched before is due. */
  readonly join: (agentId: AgentId, watcher: Mailbox) => Cell
  /** Leaves them. When nobody is left, nothing is held of the agent. */
  readonly leave: (cell: Cell, watcher: Mailbox) => void
  /** Has the agent read in the next round, if it is watched, whatever is being read now. */
  readonly markDue: (agentId: AgentId) => boolean
  readonly markAllDue: () => void
  readonly hasDue: () => boolean
  /**
   * Takes what the round that begins now has to read: what is due, and of the
   * rest what has to be refreshed.
   */
  readonly takeDue: (now: number) => ReadonlyArray<Cell>
  /** Says what was read. Tells whether that changes what the cell shows. */
  readonly show: (cell: Cell, facts: ReadonlyArray<Metadata>) => boolean
  /** Says that the cell could not be read. Tells whether that changes what it shows. */
  readonly markStale: (cell: Cell, since: DateTime.Utc) => boolean
  readonly staleSince: () => DateTime.Utc | undefined
  readonly all: () => Iterable<Cell>
}

/** Refreshing is spread over this many parts of `refreshInterval`. */
export const refreshParts = 20

export const make = (options: { readonly refreshInterval: number; readonly now: () => number }): Cells => {
  const { refreshInterval } = options
  // In the order in which they were read, those whose last read is longest ago first.
  const cells = new Map<AgentId, Cell>()
  const due = new Set<Cell>()
  // In the order in which they became so.
  const stale = new Set<Cell>()
  let watchers = 0
  // How many cells refreshing is behind, in fractions of one.
  let owed = 0
  let owedAt = options.now()

  const takeToRefresh = (now: number, taken: Set<Cell>): void => {
    owed = Math.min(cells.size, owed + (cells.size * (now - owedAt)) / refreshInterval)
    owedAt = now
    const overdueBefore = now - refreshInterval + refreshInterval / refreshParts
    for (const cell of cells.values()) {
      if (owed < 1 && cell.readAt > overdueBefore) return
      owed = Math.max(0, owed - 1)
      taken.add(cell)
    }
  }

  return {
    size: () => cells.size,
    watchers: () => watchers,
    join: (agentId, watcher) => {
      let cell = cells.get(agentId)
      if (cell === undefined) {
        cell = { agentId, view: undefined, readAt: options.now(), watchers: new Set() }
        cells.set(agentId, cell)
        due.add(cell)
      }
      cell.watchers.add(watcher)
      watchers += 1
      return cell
    },
    leave: (cell, watcher) => {
      if (!cell.watchers.delete(watcher)) return
      watchers -= 1
      if (cell.watchers.size > 0) return
      cells.delete(cell.agentId)
      due.delete(cell)
      stale.delete(cell)
    },
    markDue: (agentId) => {
      const cell = cells.get(agentId)
      if (cell !== undefined) due.add(cell)
      return cell !== undefined
    },
    markAllDue: () => {
      for (const cell of cells.values()) due.add(cell)
    },
    hasDue: () => due.size > 0,
    takeDue: (now) => {
      const taken = new Set(due)
      takeToRefresh(now, taken)
      due.clear()
      for (const cell of taken) {
        cell.readAt = now
        cells.delete(cell.agentId)
        cells.set(cell.agentId, cell)
      }
      return Array.from(taken)
    },
    show: (cell, read) => {
      stale.delete(cell)
      const facts = Facts.sorted(read)
      const { view } = cell
      if (view !== undefined && Facts.areSame(view.facts, facts)) {
        if (view.staleSince === undefined) return false
        cell.view = { ...view, staleSince: undefined }
        return true
      }
      cell.view = { agentId: cell.agentId, facts, staleSince: undefined }
      return true
    },
    markStale: (cell, since) => {
      if (cell.watchers.size === 0 || stale.has(cell)) return false
      stale.add(cell)
      cell.view = { agentId: cell.agentId, facts: cell.view?.facts ?? [], staleSince: since }
      return true
    },
    staleSince: () => {
      const [first] = stale
      return first?.view?.staleSince
    },
    all: () => cells.values()
  }
}
