import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Definition } from "../Batcher.ts"
import { unavailable } from "../Pubsub.ts"
import { bounded } from "./bounded.ts"
import type { Flush } from "./flushSpan.ts"
import { innermostMessage } from "./innermostMessage.ts"
import type { Meters } from "./meters.ts"
import * as throttledLog from "./throttledLog.ts"

/** Notifications under way at once, beyond which they are given up and counted: a hung channel must not fill the memory. */
const maxPublishing = 16

/** What bounds a notification where writes are unbounded. */
const defaultTimeoutMillis = 30_000

/** Announces the agents of a flush. It never fails: what cannot be published is counted and logged. */
export const make = (options: {
  readonly definition: Pick<Definition<never, never>, "name" | "notification">
  readonly meters: Meters
  readonly clock: Clock.Clock
  readonly timeout: number
}): ((agents: ReadonlyArray<string>, flush: Flush) => Effect.Effect<void>) => {
  const { name, notification } = options.definition
  if (notification === undefined) return () => Effect.void
  const failureLog = throttledLog.make(options.clock)
  let publishing = 0

  return (agents, { log, span }) =>
    Effect.suspend(() => {
      let payloads: ReadonlyArray<string> | undefined
      const failed = (error: unknown) => {
        const count = payloads?.length ?? 1
        options.meters.publishFailed(count)
        return log(
          failureLog(count, (total) => `failed to publish ${total} notifications`, {
            error: innermostMessage(error)
          })
        )
      }
      const publish = Effect.suspend(() => {
        const encoded = notification.encode(agents)
        payloads = encoded
        if (publishing === maxPublishing)
          return Effect.fail(new Error(`${maxPublishing} are under way already`))
        publishing += 1
        return Effect.ensuring(
          step(encoded),
          Effect.sync(() => (publishing -= 1))
        )
      })
      const step = (encoded: ReadonlyArray<string>) =>
        span.step(
          `${name}.publish`,
          // A notification carries no context, so nobody's span can have this one for parent: no producer.
          "client",
          () => ({
            "messaging.system": "pubsub",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": notification.channel,
            ...(encoded.length > 1 && { "messaging.batch.message_count": encoded.length })
          }),
          (step) =>
            bounded(
              Effect.suspend(() => step.inside(notification.publish(encoded))),
              options.timeout || defaultTimeoutMillis,
              () => Exit.fail(unavailable(new Error("no answer in time")))
            ).pipe(
              Effect.catchDefect((defect) => Effect.fail(unavailable(defect))),
              Effect.tapError(({ reason }) =>
                Effect.sync(() => step.annotate(() => ({ "error.type": reason._tag })))
              )
            )
        )
      return publish.pipe(
        Effect.catchCause((cause) => failed(Cause.squash(cause))),
        Effect.onInterrupt(() => failed("the batcher closed before it was published"))
      )
    })
}
