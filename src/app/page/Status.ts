/**
 * Says how the page is doing: whether it is connected, whether the database
 * is there, and since when what it shows is stale.
 *
 * @since 0.1.0
 */
import type { Link } from "./Connection.ts"
import { byId, setText } from "./Dom.ts"
import * as Time from "./Time.ts"
import type { State } from "./Wire.ts"

/** What is known about the way from the table to the page. */
export interface Health extends State {
  readonly link: Link
  /** When the server was last heard of, by its clock. */
  readonly heardAt: number | undefined
  /** Since when the connection is lost, by the server's clock. */
  readonly lostSince: number | undefined
}

/** A thing that is wrong, worst first. */
interface Trouble {
  readonly level: "bad" | "warn"
  readonly text: string
}

/** Since when what is shown may be out of date; `undefined` when it is not. */
export const staleSince = (health: Health): number | undefined => {
  const { heardAt, link, lostSince, staleSince, storeSince } = health
  const times = [link._tag === "Open" ? undefined : (heardAt ?? lostSince), staleSince, storeSince]
  const known = times.filter((time) => time !== undefined && time !== null)
  return known.length === 0 ? undefined : Math.min(...known)
}

/** What a server that is there says to whoever wants to watch. */
const refusalOf = ({ link }: Health): string | undefined => (link._tag === "Lost" ? link.refusal : undefined)

const troubleOf = (health: Health): Trouble | undefined => {
  const { heardAt, lostSince, storeError, storeSince } = health
  if (lostSince !== undefined) {
    const refusal = refusalOf(health)
    const since = Time.timeOfDay(lostSince)
    const what =
      refusal === undefined
        ? `Disconnected since ${since}: the server does not answer.`
        : `No news since ${since}: the server says “${refusal}”.`
    const shown = heardAt === undefined ? "" : ` What you see is as of ${Time.timeOfDay(heardAt)}.`
    return { level: "bad", text: what + shown }
  }
  if (storeSince !== null) {
    const why = storeError === null ? "" : `: ${storeError.replace(/\.$/, "")}`
    return {
      level: "bad",
      text: `The database has been away since ${Time.timeOfDay(storeSince)}${why}. Facts wait in memory; what you see is as of then.`
    }
  }
  if (health.staleSince !== null) {
    return {
      level: "warn",
      text: `What you see may be out of date since ${Time.timeOfDay(health.staleSince)}.`
    }
  }
  return undefined
}

/** What a screen reader is told: it changes only with what is wrong. */
const announcement = (health: Health): string => {
  const { link, lostSince, staleSince, storeSince } = health
  if (refusalOf(health) !== undefined) return "No news: the server refuses"
  if (lostSince !== undefined) return "Disconnected from the server"
  if (link._tag !== "Open") return ""
  if (storeSince !== null) return "Connected. The database is away"
  if (staleSince !== null) return "Connected. What is shown may be out of date"
  return "Connected. Everything is up to date"
}

const linkNames: { readonly [Tag in Link["_tag"]]: string } = {
  Connecting: "Connecting",
  Open: "Live",
  Lost: "Disconnected",
  Unauthorized: "No token"
}

export interface Status {
  readonly show: (health: Health) => void
  /** Lets the time until the next try go on. */
  readonly tick: () => void
}

export const make = (retryNow: () => void): Status => {
  const root = document.documentElement
  const link = byId("link", "span")
  const store = byId("store", "span")
  const trouble = byId("trouble", "div")
  const text = byId("trouble-text", "p")
  const sheetTrouble = byId("detail-trouble", "p")
  const retry = byId("trouble-retry", "button")
  const announcer = byId("announcer", "p")
  let retryAt: number | undefined
  retry.addEventListener("click", retryNow)

  const tick = () => {
    retry.hidden = retryAt === undefined
    if (retryAt === undefined) return
    const seconds = Math.ceil((retryAt - performance.now()) / 1_000)
    setText(retry, seconds > 0 ? `Try now (in ${seconds} s)` : "Trying…")
  }

  return {
    show: (health) => {
      const known = troubleOf(health)
      root.dataset["stale"] = String(staleSince(health) !== undefined)
      root.dataset["lost"] = String(health.lostSince !== undefined)
      link.dataset["level"] =
        health.link._tag === "Open" ? "good" : health.lostSince === undefined ? "idle" : "bad"
      setText(link, refusalOf(health) === undefined ? linkNames[health.link._tag] : "No news")
      // Without the server, nobody knows how the database is.
      store.hidden = health.link._tag !== "Open"
      store.dataset["level"] = health.storeSince === null ? "good" : "bad"
      setText(store, health.storeSince === null ? "Database ready" : "Database away")
      for (const element of [trouble, sheetTrouble]) {
        element.hidden = known === undefined
        element.dataset["level"] = known?.level ?? ""
      }
      setText(text, known?.text ?? "")
      setText(sheetTrouble, known?.text ?? "")
      setText(announcer, announcement(health))
      retryAt = health.link._tag === "Lost" ? health.link.retryAt : undefined
      tick()
    },
    tick
  }
}
