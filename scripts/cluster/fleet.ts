/** Agents that report to whichever replica, and a memory of what was accepted by whom. */
import type { Life, Replica } from "./replica.ts"

const keys = ["cpu", "disk", "memory"]

/** Agents per request. */
const perRequest = 5

interface Accepted {
  readonly at: number
  readonly by: Life
}

/** Ids from here on are of agents that report once: whoever loses that report cannot make it good. */
const firstOnce = 1_000_000

export const agentIdOf = (agent: number): string =>
  `00000000-0000-4000-8000-${agent.toString(16).padStart(12, "0")}`

export interface Fleet {
  /** Reports until told to stop, then returns when no request is under way. */
  readonly run: (isStopped: () => boolean) => Promise<void>
  /** Requests answered with 202. */
  readonly accepted: () => number
  /**
   * What the table must hold at least: of each agent the time of its newest
   * report that was accepted by a replica that runs still or ended well.
   */
  readonly owed: () => ReadonlyMap<string, number>
}

/** The value of a fact says which report it is of. */
export const valueOf = (agentId: string, key: string, at: number): string => `${key} of ${agentId} at ${at}`

export const make = (options: {
  readonly agents: number
  readonly replicas: ReadonlyArray<Replica>
  readonly random: () => number
}): Fleet => {
  const { agents, random, replicas } = options
  const lastAt = new Map<string, number>()
  const accepted = new Map<string, Array<Accepted>>()
  let count = 0
  let sent = 0

  /** Times differ between any two reports of an agent. */
  const nextAt = (agentId: string): number => {
    const at = Math.max(Date.now(), (lastAt.get(agentId) ?? 0) + 1)
    lastAt.set(agentId, at)
    return at
  }

  const report = async () => {
    const replica = replicas[Math.floor(random() * replicas.length)]
    if (replica === undefined) return
    const by = replica.life()
    const first = Math.floor(random() * agents)
    const many = Array.from({ length: perRequest }, (_, n) => (first + n) % agents)
    const reports = [...many, firstOnce + sent++].map((agent) => {
      const agentId = agentIdOf(agent)
      const at = nextAt(agentId)
      const facts = keys.map((key) => ({ key, value: valueOf(agentId, key, at), collectedAt: at }))
      return { agentId, at, facts }
    })
    try {
      const response = await fetch(`${replica.url}/api/metadata?time=agent`, {
        method: "POST",
        headers: { "content-type": "application/json", connection: "close" },
        body: JSON.stringify({ agents: reports.map(({ agentId, facts }) => ({ agentId, facts })) }),
        signal: AbortSignal.timeout(5_000)
      })
      await response.arrayBuffer()
      // Another process may have taken it than the one that was there when it was sent.
      if (response.status !== 202 || replica.life() !== by) return
      count += 1
      for (const { agentId, at } of reports) {
        const list = accepted.get(agentId) ?? []
        accepted.set(agentId, list)
        list.push({ at, by })
      }
    } catch {
      // Nobody promised anything. Whoever is refused at once does not try again at once.
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  const reporter = async (isStopped: () => boolean) => {
    while (!isStopped()) {
      await report()
      await new Promise((resolve) => setTimeout(resolve, 10 * random()))
    }
  }

  return {
    run: async (isStopped) => {
      await Promise.all(Array.from({ length: 4 }, () => reporter(isStopped)))
    },
    accepted: () => count,
    owed: () =>
      new Map(
        Array.from(accepted, ([agentId, list]) => {
          const kept = list.filter(({ by }) => by.end === "running" || by.end === "well")
          return [agentId, Math.max(0, ...kept.map(({ at }) => at))] as const
        })
      )
  }
}
