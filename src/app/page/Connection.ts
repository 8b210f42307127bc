/**
 * A stream of events that comes back by itself.
 *
 * It is read with `fetch`, because `EventSource` cannot send a token.
 *
 * @since 0.1.0
 */
import { type Memory, makeParser } from "./ServerSentEvents.ts"

/** How a connection is doing. */
export type Link =
  | { readonly _tag: "Connecting" }
  | { readonly _tag: "Open" }
  /**
   * Lost, or never had; the next try is at `retryAt` (by `performance.now()`). A
   * server that answers with a refusal says why.
   */
  | { readonly _tag: "Lost"; readonly refusal: string | undefined; readonly retryAt: number }
  /** The server wants a token, or a better one. No further try. */
  | { readonly _tag: "Unauthorized"; readonly why: string }

export interface Options {
  readonly url: string
  readonly token: () => string | undefined
  /** Milliseconds without a byte, once open, after which the connection counts as dead. */
  readonly silence: number
  readonly onEvent: (name: string, data: unknown) => void
  readonly onLink: (link: Link) => void
}

export interface Connection {
  readonly close: () => void
  /** Tries now instead of waiting for the next turn. */
  readonly retryNow: () => void
}

/** Milliseconds for the server to begin its answer: while the database is away it takes 5 s to find out. */
const patience = 8_000

const firstPause = 500
const longestPause = 5_000

class Refused extends Error {
  readonly status: number
  readonly retryAfter: number | undefined
  constructor(status: number, message: string, retryAfter: number | undefined) {
    super(message)
    this.status = status
    this.retryAfter = retryAfter
  }
}

const readRefusal = async (response: Response): Promise<Refused> => {
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN)
  const body: unknown = await response.json().catch(() => undefined)
  const message =
    typeof body === "object" && body !== null && "message" in body
      ? String(body.message)
      : response.statusText
  return new Refused(response.status, message, Number.isNaN(seconds) ? undefined : seconds * 1_000)
}

const refusalOf = (cause: unknown): string | undefined =>
  cause instanceof Refused ? cause.message || `status ${cause.status}` : undefined

/** Reads until the stream ends, fails, or says nothing for too long. */
const read = async (options: Options, memory: Memory, abort: AbortController, onOpen: () => void) => {
  const token = options.token()
  let timer = 0
  const allow = (millis: number) => {
    clearTimeout(timer)
    timer = setTimeout(() => abort.abort(), millis)
  }
  allow(patience)
  try {
    const response = await fetch(options.url, {
      signal: abort.signal,
      cache: "no-store",
      headers: {
        accept: "text/event-stream",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(memory.lastEventId === undefined ? {} : { "last-event-id": memory.lastEventId })
      }
    })
    if (!response.ok || response.body === null) throw await readRefusal(response)
    onOpen()
    allow(options.silence)
    const parse = makeParser(memory)
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    while (true) {
      const { done, value } = await reader.read()
      if (done) return
      allow(options.silence)
      for (const event of parse(value)) options.onEvent(event.name, JSON.parse(event.data))
    }
  } finally {
    clearTimeout(timer)
  }
}

/** Connects, and goes on doing so until it is closed. */
export const open = (options: Options): Connection => {
  const memory: Memory = { lastEventId: undefined, retry: undefined }
  let abort = new AbortController()
  let closed = false
  let failures = 0
  let timer = 0

  const pause = (cause: unknown): number => {
    if (cause instanceof Refused && cause.retryAfter !== undefined)
      return Math.min(cause.retryAfter, longestPause)
    const grown = Math.min((memory.retry ?? firstPause) * 2 ** failures, longestPause)
    // Spread, so that a server that comes back is not met by all pages at once.
    return grown * (0.5 + Math.random() / 2)
  }

  const lost = (cause: unknown) => {
    if (closed) return
    if (cause instanceof Refused && (cause.status === 401 || cause.status === 403)) {
      options.onLink({ _tag: "Unauthorized", why: cause.message })
      return
    }
    const wait = pause(cause)
    failures += 1
    options.onLink({ _tag: "Lost", refusal: refusalOf(cause), retryAt: performance.now() + wait })
    timer = setTimeout(connect, wait)
  }

  const connect = () => {
    timer = 0
    if (closed) return
    abort = new AbortController()
    read(options, memory, abort, () => {
      failures = 0
      options.onLink({ _tag: "Open" })
    }).then(() => lost(undefined), lost)
  }

  options.onLink({ _tag: "Connecting" })
  connect()
  return {
    close: () => {
      closed = true
      clearTimeout(timer)
      abort.abort()
    },
    retryNow: () => {
      if (timer === 0) return
      clearTimeout(timer)
      connect()
    }
  }
}
