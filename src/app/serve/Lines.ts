/**
 * The lines of the fleet with what changed when, so that a watcher who comes
 * back is told only what it missed.
 *
 * @since 0.1.0
 */
import type { AgentId } from "../../AgentId.ts"
import type { AgentLine } from "../api/Models.ts"
import * as Outbox from "./Outbox.ts"

/** Lines of one event. */
const maxPerEvent = 500

/** Agents whose end is remembered. Who was away for longer is told everything. */
const maxRemoved = 10_000

/**
 * @category models
 * @since 0.1.0
 */
export interface Lines {
  /** Gives the event that tells of the changes, if there are any. */
  readonly replaceAll: (lines: ReadonlyMap<AgentId, AgentLine>) => Uint8Array | undefined
  /** The same of these agents only; one without a line is gone. */
  readonly replaceSome: (
    agentIds: ReadonlyArray<AgentId>,
    lines: ReadonlyArray<AgentLine>
  ) => Uint8Array | undefined
  /** Everything, as events. */
  readonly snapshot: Outbox.Entry
  /** What came after the event with this id; undefined if that is not known. */
  readonly since: (eventId: string | undefined) => Outbox.Entry | undefined
}

interface Held {
  readonly line: AgentLine
  readonly changedIn: number
}

const isSame = (a: AgentLine | undefined, b: AgentLine): boolean =>
  a !== undefined && a.facts === b.facts && a.errors === b.errors && a.lastCollectedAt === b.lastCollectedAt

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = (instance: string): Lines => {
  const held = new Map<AgentId, Held>()
  let removed: Array<{ readonly id: AgentId; readonly removedIn: number }> = []
  /** What was removed before it is forgotten. */
  let removedFrom = 0
  let version = 0
  let cached: { readonly version: number; readonly parts: ReadonlyArray<Uint8Array> } | undefined

  const idOf = (version: number) => `${instance}.${version}`

  const apply = (lines: ReadonlyArray<AgentLine>, gone: ReadonlyArray<AgentId>): Uint8Array | undefined => {
    const news = lines.filter((line) => !isSame(held.get(line.id)?.line, line))
    const lost = gone.filter((id) => held.has(id))
    if (news.length === 0 && lost.length === 0) return undefined
    version += 1
    for (const line of news) held.set(line.id, { line, changedIn: version })
    for (const id of lost) {
      held.delete(id)
      removed.push({ id, removedIn: version })
    }
    if (removed.length > maxRemoved) {
      removed = removed.slice(-maxRemoved / 2)
      removedFrom = removed[0]?.removedIn ?? version
    }
    return Outbox.event("changes", { agents: news, removed: lost }, idOf(version))
  }

  const render = (): ReadonlyArray<Uint8Array> => {
    const all = Array.from(held.values(), ({ line }) => line)
    const parts: Array<Uint8Array> = []
    let start = 0
    do {
      const agents = all.slice(start, start + maxPerEvent)
      start += maxPerEvent
      const last = start >= all.length
      // Only what is complete can be resumed after.
      const id = last ? idOf(version) : undefined
      parts.push(Outbox.event("snapshot", { agents, first: start === maxPerEvent, last }, id))
    } while (start < all.length)
    return parts
  }

  return {
    replaceAll: (lines) =>
      apply(
        Array.from(lines.values()),
        Array.from(held.keys()).filter((id) => !lines.has(id))
      ),
    replaceSome: (agentIds, lines) => {
      const found = new Set(lines.map(({ id }) => id))
      return apply(
        lines,
        agentIds.filter((id) => !found.has(id))
      )
    },
    snapshot: () => {
      if (cached?.version !== version) cached = { version, parts: render() }
      return cached.parts
    },
    since: (eventId) => {
      const [, of, number] = /^(\w+)\.(\d+)$/.exec(eventId ?? "") ?? []
      const seen = Number(number)
      if (of !== instance || seen < removedFrom || seen > version) return undefined
      return () => {
        const agents: Array<AgentLine> = []
        for (const { changedIn, line } of held.values()) if (changedIn > seen) agents.push(line)
        const gone = removed.filter(({ id, removedIn }) => removedIn > seen && !held.has(id))
        return [Outbox.event("changes", { agents, removed: gone.map(({ id }) => id) }, idOf(version))]
      }
    }
  }
}
