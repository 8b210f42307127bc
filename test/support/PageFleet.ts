/**
 * A fleet as one would meet it, to look at: ids of both kinds, values of many
 * lengths, some agents late, silent, or with errors.
 */
import type { Fact, Pulse } from "../../src/app/page/Wire.ts"
import { type PageServer, quietPulse } from "./PageServer.ts"

/** Random, but the same in each run. */
const makeRandom = (seed: number) => () => {
  seed = (seed * 1_664_525 + 1_013_904_223) % 4_294_967_296
  return seed / 4_294_967_296
}

const hex = (random: () => number, digits: number) =>
  Array.from({ length: digits }, () => Math.floor(random() * 16).toString(16)).join("")

const idOf = (random: () => number) =>
  `${hex(random, 8)}-${hex(random, 4)}-4${hex(random, 3)}-a${hex(random, 3)}-${hex(random, 12)}`

const factsOf = (random: () => number, at: number): ReadonlyArray<Fact> => {
  const value = (key: string, value: string): Fact => ({ key, value, error: "", collectedAt: at })
  return [
    value("cpu", `${Math.floor(random() * 100)} %`),
    value("disk", `${Math.floor(20 + random() * 70)} % of 64 GiB`),
    value("load", (random() * 4).toFixed(2)),
    value("memory", `${(random() * 14).toFixed(1)} / 16 GiB`),
    value("processes", String(Math.floor(90 + random() * 300))),
    value("sessions", String(Math.floor(random() * 4))),
    value("uptime", `${Math.floor(random() * 40)} days`),
    value("version", "v2.31.4+c0ffee1")
  ]
}

const failed = (at: number): Fact => ({
  key: "gpu",
  value: "",
  error: "nvidia-smi: command not found",
  collectedAt: at
})

/** Fills a server with a fleet, and lets it report as long as it runs. */
export const fill = (server: PageServer, agents: number): void => {
  const random = makeRandom(7)
  const now = Date.now()
  const ids = Array.from({ length: agents }, () => idOf(random))
  for (const id of ids) {
    const luck = random()
    const age = luck < 0.03 ? 1_800_000 : luck < 0.07 ? 45_000 : Math.floor(random() * 6_000)
    const at = now - age
    const facts = factsOf(random, at)
    server.report(id, luck > 0.95 ? [...facts, failed(at)] : facts)
  }
  const lively = ids.filter((id) =>
    [...(server.facts.get(id)?.values() ?? [])].every((f) => f.collectedAt > now - 10_000)
  )
  const rate = agents * 4
  server.nextPulse = (before, at) => {
    const last = before ?? quietPulse(at)
    for (const id of lively) if (random() < 0.4) server.report(id, factsOf(random, at))
    const given = Math.round(rate * (0.85 + 0.3 * random()))
    const burst = Math.floor(at / 1_000) % 47 < 3
    const capacity = Math.floor((given * (burst ? 2 : 1)) / 700)
    const scheduled = Math.floor(at / 1_000) % 5 === 0 ? 1 : 0
    const size = Math.round(120 + random() * 160)
    const written = capacity * 500 + scheduled * size
    return {
      ...last,
      at,
      metadata: {
        ...last.metadata,
        offered: last.metadata.offered + given * (burst ? 2 : 1),
        written: last.metadata.written + written,
        superseded: last.metadata.superseded + Math.max(0, given - written),
        pending: Math.round(rate * (0.3 + (Math.floor(at / 1_000) % 5) * 0.12 + (burst ? 0.8 : 0))),
        dropped: last.metadata.dropped
      },
      batches: {
        ...last.batches,
        capacity: {
          count: last.batches.capacity.count + capacity,
          rows: last.batches.capacity.rows + capacity * 500
        },
        scheduled: {
          count: last.batches.scheduled.count + scheduled,
          rows: last.batches.scheduled.rows + scheduled * size
        }
      },
      writeMs: {
        p50: 4 + random() * 1.5 + (burst ? 4 : 0),
        p95: 9 + random() * 4,
        count: capacity + scheduled
      }
    }
  }
  const history: Array<Pulse> = []
  for (let second = 120; second > 0; second--)
    history.push(server.nextPulse(history.at(-1), now - second * 1_000))
  server.setHistory(history)
}
