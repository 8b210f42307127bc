/**
 * What the server sends to the page, as its API describes it. Only types come
 * from there: nothing of the API is loaded by the browser.
 *
 * @since 0.1.0
 */
import type * as Events from "../api/Events.ts"
import type * as Models from "../api/Models.ts"

type OverviewEvent = typeof Events.Overview.Type
type WatchedEvent = typeof Events.Watched.Type
type Data<Event extends { readonly event: string; readonly data: unknown }, Name> = Extract<
  Event,
  { readonly event: Name }
>["data"]

/** Who one is to the server. */
export type Session = typeof Models.Session.Type

/** One agent in the overview. */
export type Line = typeof Models.AgentLine.Type

/** One fact of an agent. */
export type Fact = typeof Models.Fact.Type

/** Lines of the whole fleet, in one or more parts. */
export type Snapshot = Data<OverviewEvent, "snapshot">

/** Lines that changed since. */
export type Changes = Data<OverviewEvent, "changes">

/** Since when something is wrong, or `null`. */
export type State = Events.State

/** All the facts of one agent. */
export type Facts = Data<WatchedEvent, "facts">

/** The server's own counters, once a second. They count from its start. */
export type Pulse = Events.Pulse

/** What became of the records of one kind. */
export type Account = Pulse["metadata"]

/** The last pulses, oldest first. */
export type History = Data<OverviewEvent, "history">

/** Why a batch was written. */
export type Reason = keyof Pulse["batches"]
