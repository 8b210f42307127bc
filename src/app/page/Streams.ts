/**
 * The page's two streams: the overview with the pulse, and the facts of the
 * agents in sight. A browser opens six connections to a server, for all tabs
 * together; so there are two only, and none while the tab is hidden.
 *
 * @since 0.1.0
 */
import * as Connection from "./Connection.ts"
import * as Token from "./Token.ts"
import type { Changes, Facts, History, Pulse, Snapshot, State } from "./Wire.ts"

/** A pulse comes every second: without one, the server or the way to it is gone. */
const silence = 3_500

/** Only the pulse shows that the server is alive; here it is silent for up to 15 s. */
const quietSilence = 20_000

/** While one scrolls, the agents in sight change all the time. */
const settled = 200

/** The most that the server watches in one stream. */
const mostWatched = 200

export interface Handlers {
  readonly onLink: (link: Connection.Link) => void
  readonly onSnapshot: (snapshot: Snapshot) => void
  readonly onChanges: (changes: Changes) => void
  readonly onState: (state: State) => void
  readonly onHistory: (history: History) => void
  readonly onPulse: (pulse: Pulse) => void
  readonly onFacts: (facts: Facts) => void
}

export interface Streams {
  readonly start: () => void
  readonly stop: () => void
  readonly retryNow: () => void
  /** Watches these agents instead of those before, the first of them if there are too many. */
  readonly watch: (ids: ReadonlyArray<string>) => void
}

export const make = (handlers: Handlers): Streams => {
  let running = false
  let overview: Connection.Connection | undefined
  let facts: Connection.Connection | undefined
  let wanted: ReadonlyArray<string> = []
  let watched = ""
  let timer = 0

  const onOverview = (name: string, data: unknown) => {
    if (name === "snapshot") handlers.onSnapshot(data as Snapshot)
    else if (name === "changes") handlers.onChanges(data as Changes)
    else if (name === "state") handlers.onState(data as State)
    else if (name === "history") handlers.onHistory(data as History)
    else if (name === "pulse") handlers.onPulse(data as Pulse)
  }

  const unwatch = () => {
    facts?.close()
    facts = undefined
    watched = ""
  }

  const watchNow = () => {
    // In another order they are the same agents, and no reason to ask anew.
    const ids = wanted.slice(0, mostWatched).sort().join()
    if (!running || ids === watched) return
    unwatch()
    watched = ids
    if (ids === "") return
    facts = Connection.open({
      url: `/api/watch?agents=${ids}`,
      token: Token.current,
      silence: quietSilence,
      onEvent: (name, data) => {
        if (name === "facts") handlers.onFacts(data as Facts)
      },
      // How the server is doing, the overview says: it need not wait for its turn to find out.
      onLink: (link) => {
        if (link._tag === "Open") overview?.retryNow()
      }
    })
  }

  return {
    start: () => {
      if (running) return
      running = true
      overview = Connection.open({
        url: "/api/overview?pulse=true",
        token: Token.current,
        silence,
        onEvent: onOverview,
        onLink: (link) => {
          handlers.onLink(link)
          // Both streams are lost together, but each waits for a turn of its own.
          if (link._tag === "Open") facts?.retryNow()
        }
      })
      watchNow()
    },
    stop: () => {
      running = false
      overview?.close()
      unwatch()
    },
    retryNow: () => {
      overview?.retryNow()
      facts?.retryNow()
    },
    watch: (ids) => {
      wanted = ids
      clearTimeout(timer)
      timer = setTimeout(watchNow, watched === "" ? 0 : settled)
    }
  }
}
