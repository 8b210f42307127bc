/**
 * What the server can be told.
 *
 * @since 0.1.0
 */

/**
 * @category models
 * @since 0.1.0
 */
export interface Settings {
  /** Where it listens. */
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  /** Names other than its own address under which it is reached, for the check of `Host`. */
  readonly allowedHosts: ReadonlyArray<string>
  /** Whether a proxy in front may say which host was asked for. */
  readonly trustProxy: boolean
  /** Bytes of a request's body, at most. */
  readonly maxBody: number
  /** Milliseconds that a request may take to arrive and be answered. */
  readonly requestTimeoutMs: number
  /** Streams at once, of all and of one token. */
  readonly maxWatchers: number
  readonly maxWatchersPerToken: number
  /** Milliseconds between two events of one agent to one watcher, unless it asks for other ones. */
  readonly minIntervalMs: number
  /** Milliseconds that the server stays up after it has said that it is not ready any more. */
  readonly drainMs: number
  /** What the batcher was told, for the page to know. */
  readonly flushIntervalMs: number
  readonly capacity: number
  readonly maxPending: number
}

/**
 * @category constants
 * @since 0.1.0
 */
export const defaults: Settings = {
  host: "127.0.0.1",
  port: 3_000,
  allowedHosts: [],
  trustProxy: false,
  maxBody: 1024 * 1024,
  requestTimeoutMs: 10_000,
  maxWatchers: 10_000,
  maxWatchersPerToken: 10_000,
  minIntervalMs: 1_000,
  drainMs: 0,
  flushIntervalMs: 5_000,
  capacity: 2_500,
  maxPending: 50_000
}

/**
 * Whether only programs of the same machine reach this address.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host)
