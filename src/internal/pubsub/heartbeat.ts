import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { impatiently } from "../background.ts"
import { PubsubError, unavailable } from "./error.ts"
import type { Meters } from "./meters.ts"
import type { Session } from "./session.ts"
import type { Transport } from "./transport.ts"

export interface Options {
  readonly transport: Transport
  readonly intervalMillis: number
  readonly clock: Clock.Clock
  readonly meters: Meters
}

/**
 * Finds out whether the connection still does what it is for, and ends the
 * session if not.
 *
 * With each heartbeat the server is asked for an answer, which finds a dead
 * connection, and a message to this process is published the way the application
 * publishes, which finds a connection that lives and hears nothing: through a
 * pooler, on another database, on a server that is no longer the primary. A
 * message that could not be sent says nothing about the connection that listens.
 */
export const start = Effect.fnUntraced(function* (
  session: Session,
  options: Options
): Effect.fn.Return<void, PubsubError> {
  const echo = makeEcho(session, options)
  yield* Scope.provide(session.connection.listen(echo.channel, echo.hear), session.scope)
  yield* Effect.all([probe(session, options), echo.sendAndHear], {
    concurrency: "unbounded",
    discard: true
  }).pipe(
    Effect.delay(options.intervalMillis),
    Effect.forever,
    // Nobody needs to find these among the application's traces.
    Effect.withTracerEnabled(false),
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Deferred.fail(session.ended, lostBy(cause))
    ),
    Effect.forkIn(session.scope)
  )
})

const lostBy = (cause: Cause.Cause<PubsubError>): PubsubError => {
  const error = Cause.squash(cause)
  return error instanceof PubsubError ? error : unavailable(error)
}

const probe = (session: Session, { intervalMillis }: Options) =>
  impatiently(session.connection.probe).pipe(
    Effect.timeoutOrElse({
      duration: intervalMillis,
      orElse: () => Effect.fail(unavailable(new Error(`no answer within ${intervalMillis} ms`)))
    })
  )

// A channel of its own per session, so that no earlier session's message is taken for this one's.
const makeEcho = (session: Session, { clock, intervalMillis, meters, transport }: Options) => {
  const channel = `effect_metadata_batcher_${crypto.randomUUID().replaceAll("-", "")}`
  let sent = 0
  let heard = Deferred.makeUnsafe<void>()

  const hear = (payload: string) => {
    if (payload === `${sent}`) Deferred.doneUnsafe(heard, Exit.void)
  }

  const sendAndHear = Effect.gen(function* () {
    const sentAt = clock.monotonicTimeNanosUnsafe()
    heard = Deferred.makeUnsafe()
    const outcome = yield* impatiently(session.connection.publish(channel, [`${++sent}`])).pipe(
      Effect.timeout(intervalMillis),
      Effect.exit
    )
    if (Exit.isFailure(outcome)) return
    yield* Deferred.await(heard).pipe(
      Effect.timeoutOrElse({
        duration: intervalMillis,
        orElse: () => {
          const why = `a message to itself did not arrive within ${intervalMillis} ms: ${transport.whyUnheard}`
          return Effect.fail(unavailable(new Error(why)))
        }
      })
    )
    meters.delivered(Number(clock.monotonicTimeNanosUnsafe() - sentAt) / 1e9)
  })

  return { channel, hear, sendAndHear }
}
