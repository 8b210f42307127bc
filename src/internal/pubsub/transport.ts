import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { PubsubError } from "./error.ts"

/** What carries the messages: PostgreSQL or Redis. */
export interface Transport {
  /** Opens a connection to listen on. Closing the scope closes it, and does not wait for a server that hangs. */
  readonly connect: Effect.Effect<Connection, PubsubError, Scope.Scope>
  /** Why a message that was sent may not arrive though the connection lives. */
  readonly whyUnheard: string
}

/** A connection to listen on. Once lost it is never used again. */
export interface Connection {
  /**
   * Returns when the server has confirmed that it listens, and hands on what
   * arrives from then on until the scope closes.
   */
  readonly listen: (
    channel: string,
    deliver: (payload: string) => void
  ) => Effect.Effect<void, PubsubError, Scope.Scope>
  /** Publishes through the connections that the application publishes through. */
  readonly publish: (channel: string, payloads: ReadonlyArray<string>) => Effect.Effect<void, PubsubError>
  /** Asks the server whether this connection lives. */
  readonly probe: Effect.Effect<void, PubsubError>
  /** Fails when the connection is lost. */
  readonly lost: Effect.Effect<never, PubsubError>
}
