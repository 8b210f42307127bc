/**
 * The live page: what the server tells, put where it is seen.
 *
 * @since 0.1.0
 */
import * as Detail from "./Detail.ts"
import { byId, plural, setText } from "./Dom.ts"
import { Fleet } from "./Fleet.ts"
import { Grid } from "./Grid.ts"
import * as Status from "./Status.ts"
import * as Streams from "./Streams.ts"
import * as Time from "./Time.ts"
import * as Token from "./Token.ts"
import * as Traffic from "./Traffic.ts"
import * as View from "./View.ts"
import type { Fact, Session } from "./Wire.ts"

const top = byId("top", "header")
const tools = byId("tools", "div")
const empty = byId("empty", "div")
const example = byId("empty-example", "pre")

const fleet = new Fleet()
/** The facts of the agents that are watched, and of some that were. */
const facts = new Map<string, ReadonlyArray<Fact>>()
const traffic = Traffic.make(byId("charts", "div"))
let inSight: ReadonlyArray<string> = []
let sortedAt = 0
let health: Status.Health = {
  link: { _tag: "Connecting" },
  heardAt: undefined,
  lostSince: undefined,
  storeSince: null,
  storeError: null,
  staleSince: null
}

/** Ages count up to here: what is not known since is not held against the agents. */
const asOf = (): number => Status.staleSince(health) ?? Time.now()

const showEmpty = (shown: number) => {
  empty.hidden = shown > 0
  if (shown > 0) return
  const none = fleet.lines.size === 0
  example.hidden = !none || !fleet.complete
  setText(
    byId("empty-text", "p"),
    !none
      ? "No agent matches."
      : fleet.complete
        ? "No agent has reported yet. Let one report:"
        : "Waiting for the fleet…"
  )
  const authorization = Token.current() === undefined ? "" : " -H 'authorization: Bearer …'"
  setText(
    example,
    `curl ${location.origin}/api/agents/01980000-0000-7000-8000-000000000001/metadata${authorization} --json '{"facts": [{"key": "cpu", "value": "12 %"}]}'`
  )
}

const showFleet = () => {
  sortedAt = performance.now()
  const lines = fleet.select(view.wanted(), asOf())
  grid.show(lines, asOf())
  view.showCounts(fleet.counts(asOf()))
  showEmpty(lines.length)
  const agent = detail.agent()
  if (agent !== undefined) detail.showLine(fleet.lines.get(agent), asOf())
}

const watch = () => {
  const agent = detail.agent()
  streams.watch(agent === undefined ? inSight : [agent, ...inSight.filter((id) => id !== agent)])
}

const showAgent = () => {
  const agent = view.agent()
  if (agent === undefined) detail.close()
  else {
    detail.open(agent)
    const known = facts.get(agent)
    if (known !== undefined) detail.showFacts(known)
  }
  watch()
}

const view = View.make(() => {
  showAgent()
  showFleet()
  const { search, state } = view.wanted()
  const found = fleet.select(view.wanted(), asOf()).length
  setText(byId("found", "p"), search === "" && state === "all" ? "" : `${plural(found, "agent")} found`)
})

const detail = Detail.make((closed) => {
  view.openAgent(undefined)
  grid.focus(closed)
})

const grid = new Grid({
  list: byId("grid", "ol"),
  covered: () => tools.getBoundingClientRect().height + top.getBoundingClientRect().height,
  open: (id) => view.openAgent(id),
  factsOf: (id) => facts.get(id),
  onSight: (ids) => {
    inSight = ids
    watch()
  }
})

const setHealth = (change: Partial<Status.Health>) => {
  health = { ...health, ...change }
  status.show(health)
}

/** The fleet changes at most once a second; sorting by time at each change would let nobody read. */
const restless = () =>
  ["newest", "oldest"].includes(view.wanted().sort) && performance.now() - sortedAt < 3_000

const streams = Streams.make({
  onLink: (link) => {
    if (link._tag === "Unauthorized") return ask(link.why)
    const lostSince = link._tag === "Lost" ? (health.lostSince ?? Time.now()) : undefined
    setHealth({ link, lostSince, heardAt: link._tag === "Open" ? Time.now() : health.heardAt })
    // Once connected, the fleet is told anew: until then its lines are old.
    if (link._tag !== "Open") showFleet()
  },
  onSnapshot: (snapshot) => {
    fleet.snapshot(snapshot)
    if (snapshot.last) showFleet()
  },
  onChanges: (changes) => {
    fleet.changes(changes)
    for (const id of changes.removed) facts.delete(id)
    if (!restless()) showFleet()
  },
  onState: (state) => {
    setHealth(state)
    showFleet()
  },
  onHistory: ({ pulses }) => {
    const newest = pulses.at(-1)
    if (newest !== undefined) Time.learn(newest.at)
    traffic.history(pulses)
  },
  onPulse: (pulse) => {
    Time.learn(pulse.at)
    setHealth({ heardAt: pulse.at })
    traffic.pulse(pulse)
  },
  onFacts: ({ agentId, facts: told }) => {
    facts.set(agentId, told)
    grid.showFacts(agentId, told)
    if (agentId === detail.agent()) detail.showFacts(told)
  }
})

const status = Status.make(() => streams.retryNow())

const session = async (): Promise<Session> => {
  const held = Token.current()
  const response = await fetch("/api/session", {
    headers: held === undefined ? {} : { authorization: `Bearer ${held}` }
  })
  if (response.status === 401) {
    const { message } = await response.json()
    throw new Token.Unauthorized(String(message))
  }
  if (!response.ok) throw new Error(response.statusText)
  return await response.json()
}

const ask = (why: string | undefined) => {
  streams.stop()
  setHealth({ link: { _tag: "Unauthorized", why: why ?? "" }, lostSince: undefined })
  token.ask(why)
}

/** Asks who one is, and for a token if nobody; a server that does not answer is tried by the streams. */
const start = async () => {
  token.show()
  try {
    const { role, tokens } = await session()
    if (tokens && role !== "reader" && role !== "operator") {
      return ask(role === null ? undefined : "This token may not read.")
    }
  } catch (error) {
    if (error instanceof Token.Unauthorized) return ask(error.message)
  }
  streams.start()
}

const token = Token.make(() => {
  streams.stop()
  start()
})

document.addEventListener("visibilitychange", () => {
  if (document.hidden) streams.stop()
  else if (!token.isAsking()) streams.start()
})
addEventListener("online", () => streams.retryNow())

// What stays at the top is as high as its text needs.
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--top-height", `${top.getBoundingClientRect().height}px`)
}).observe(top)

setInterval(() => {
  status.tick()
  grid.tick()
  detail.tick()
  // Agents also change their state by saying nothing.
  if (performance.now() - sortedAt >= 3_000) showFleet()
}, 1_000)

setText(byId("place", "p"), location.host)
showAgent()
showFleet()
status.show(health)
start()
