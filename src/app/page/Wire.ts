/**
 * What the server sends to the page. Times are milliseconds since the epoch.
 *
 * @since 0.1.0
 */

/** Who one is to the server. */
export interface Session {
  /** Whether the server asks for tokens at all. */
  readonly tokens: boolean
  /** `null`: nobody yet, a token is needed. */
  readonly role: "agent" | "reader" | "operator" | null
  readonly version: string
  /** Time between two writes of a batch that is not full. */
  readonly flushIntervalMs: number
}

/** One agent in the overview. */
export interface Line {
  readonly id: string
  readonly facts: number
  /** Facts whose error is not empty. */
  readonly errors: number
  readonly lastCollectedAt: number
}

/** One fact of an agent. */
export interface Fact {
  readonly key: string
  readonly value: string
  readonly error: string
  readonly collectedAt: number
}

/** Event `snapshot`: lines of the whole fleet, in one or more parts. */
export interface Snapshot {
  readonly agents: ReadonlyArray<Line>
  readonly first: boolean
  readonly last: boolean
}

/** Event `changes`: lines that changed since. */
export interface Changes {
  readonly agents: ReadonlyArray<Line>
  readonly removed: ReadonlyArray<string>
}

/** Event `state`: since when something is wrong, or `null`. */
export interface State {
  /** The database takes no writes. */
  readonly storeSince: number | null
  /** What the database, or the way to it, says. */
  readonly storeError: string | null
  /** What is shown may be older than the table. */
  readonly staleSince: number | null
}

/** Event `facts`: all the facts of one agent. */
export interface Facts {
  readonly agentId: string
  readonly facts: ReadonlyArray<Fact>
  readonly staleSince: number | null
}

/** What became of the records of one kind since the server started. */
export interface Account {
  readonly offered: number
  readonly queued: number
  readonly pending: number
  readonly inFlight: number
  readonly written: number
  readonly superseded: number
  readonly unchanged: number
  readonly dropped: number
  readonly refused: number
  readonly discarded: number
}

/** Why a batch was written. */
export const reasons = ["capacity", "scheduled", "manual", "shutdown"] as const

/** Why a batch was written. */
export type Reason = (typeof reasons)[number]

/** Batches of one reason, and their rows, since the server started. */
export interface Batches {
  readonly count: number
  readonly rows: number
}

/** Event `pulse`: the server's own counters, once a second. */
export interface Pulse {
  readonly at: number
  readonly metadata: Account
  readonly batches: { readonly [Name in Reason]: Batches }
  /** Writes of the last seconds; `null` when there was none. */
  readonly writeMs: { readonly p50: number | null; readonly p95: number | null }
  readonly capacity: number
  readonly maxPending: number
  readonly storeSince: number | null
  readonly storeError: string | null
}

/** Event `history`: the last pulses, oldest first. */
export interface History {
  readonly pulses: ReadonlyArray<Pulse>
}
