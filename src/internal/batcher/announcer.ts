import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as LogLevel from "effect/LogLevel"
import * as Schedule from "effect/Schedule"
import { bounded } from "../bounded.ts"
import * as throttledLog from "../throttledLog.ts"
import type { Announce } from "./definition.ts"
import { toError } from "./failure.ts"
import type { FlushSpan, Handle } from "./flushSpan.ts"
import type { Meters } from "./meters.ts"
import type { Settled } from "./writer.ts"

/** Notifications under way at once: a channel that hangs must not fill the memory. */
const maxPublishing = 16

/** What bounds a notification where writes are unbounded. */
const defaultTimeoutMillis = 30_000

/** Tells others whose rows have been written, and ends the flush. */
export interface Announcer {
  /** Never fails: who cannot be told of now is told of later. */
  readonly announce: (settled: Settled) => Effect.Effect<void>
  /** Tells again what could not be told, for as long as it runs. */
  readonly retry: Effect.Effect<never>
  /** One last try, which takes at most so many milliseconds. */
  readonly last: (timeout: number) => Effect.Effect<void>
  /** Groups of which nobody has been told yet. */
  readonly unannounced: () => number
}

export const make = (environment: {
  readonly announce: Announce | undefined
  readonly name: string
  readonly meters: Meters
  readonly clock: Clock.Clock
  readonly timeout: number
  readonly maxWaiting: number
  readonly pauses: Schedule.Schedule<unknown>
}): Announcer => {
  const { announce, clock, meters, name } = environment
  const failureLog = throttledLog.make(clock)
  const waiting = new Set<string>()
  const some = Latch.makeUnsafe(false)
  let publishing = 0

  const wait = (groups: ReadonlyArray<string>): void => {
    for (const group of groups) if (waiting.size < environment.maxWaiting) waiting.add(group)
    if (waiting.size > 0) Latch.openUnsafe(some)
  }

  /** These groups, and those that wait already: one notification serves both. */
  const withWaiting = (groups: ReadonlyArray<string>): ReadonlyArray<string> => {
    if (waiting.size === 0) return groups
    const all = Array.from(new Set([...waiting, ...groups]))
    waiting.clear()
    Latch.closeUnsafe(some)
    return all
  }

  const publish = (to: Announce, payloads: ReadonlyArray<string>, parent: Handle) =>
    parent.step(
      `${name}.publish`,
      // A notification carries no context, so nobody's span can have this one for parent: no producer.
      "client",
      () => ({
        "messaging.system": "pubsub",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": to.channel,
        ...(payloads.length > 1 && { "messaging.batch.message_count": payloads.length })
      }),
      (step) =>
        bounded(
          Effect.suspend(() => step.inside(to.publish(payloads))),
          Effect.sleep(environment.timeout || defaultTimeoutMillis),
          () => Exit.fail(new Error("no answer in time"))
        ).pipe(
          Effect.catchDefect(Effect.fail),
          Effect.tapError((error) => Effect.sync(() => step.annotate(() => ({ "error.type": tagOf(error) }))))
        )
    )

  /** Publishes, or keeps what could not be published. Answers whether all have been told. */
  const tell = (to: Announce, news: ReadonlyArray<string>, span: FlushSpan | undefined) =>
    Effect.suspend(() => {
      if (publishing === maxPublishing) {
        wait(news)
        return Effect.succeed(false)
      }
      const groups = withWaiting(news)
      if (groups.length === 0) return Effect.succeed(true)
      publishing += 1
      const { encoded, error: bug, left, payloads } = encode(to, groups)
      const failed = (error: unknown, unannounced: ReadonlyArray<string>) => {
        wait(unannounced)
        const count = Math.max(1, payloads.length)
        meters.publishFailed(count)
        const line = failureLog(
          count,
          (total) => `failed to publish ${total} notifications, will be retried`,
          {
            error: toError(error).message
          }
        )
        return Effect.as(span === undefined ? line : span.log(line), false)
      }
      const publishAll = payloads.length === 0 ? Effect.void : publish(to, payloads, span ?? untraced)
      const told = publishAll.pipe(
        Effect.onInterrupt(() => failed(new Error("the batcher closed before it was published"), groups)),
        Effect.matchEffect({
          onSuccess: () => Effect.succeed(true),
          onFailure: (error) => failed(error, encoded)
        })
      )
      return Effect.ensuring(
        left.length === 0 ? told : Effect.flatMap(told, () => failed(bug, left)),
        Effect.sync(() => {
          publishing -= 1
        })
      )
    })

  const end = ({ failure, isRetry, reason, span, startedAt, tally, written }: Settled): void => {
    if (tally.written > 0 && !isRetry) {
      // The wall clock may be set back meanwhile.
      const seconds = Math.max(0, clock.currentTimeMillisUnsafe() - startedAt) / 1000
      meters.flushed(reason, written.counts, tally.written, seconds)
    }
    span.end(failure)
  }

  const debug = ({ span, tally }: Settled) =>
    Effect.flatMap(LogLevel.isEnabled("Debug"), (isEnabled) =>
      isEnabled && tally.written > 0
        ? throttledLog.ignoreDefect(span.log(Effect.logDebug(`flushed ${tally.written} rows`)))
        : Effect.void
    )

  return {
    announce: (settled) => {
      const told =
        announce === undefined || settled.written.news.length === 0
          ? Effect.void
          : tell(announce, settled.written.news, settled.span)
      return told.pipe(Effect.andThen(debug(settled)), Effect.ensuring(Effect.sync(() => end(settled))))
    },
    retry:
      announce === undefined
        ? Effect.never
        : some.await.pipe(
            Effect.andThen(
              Effect.schedule(
                Effect.suspend(() => tell(announce, [], undefined)),
                Schedule.while(environment.pauses, () => waiting.size > 0)
              )
            ),
            Effect.forever
          ),
    last: (timeout) =>
      announce === undefined || waiting.size === 0
        ? Effect.void
        : Effect.asVoid(Effect.timeoutOption(tell(announce, [], undefined), timeout)),
    unannounced: () => waiting.size
  }
}

/** What groups are encoded to, and those that a bug of the application's leaves unencoded. */
interface Encoded {
  readonly payloads: ReadonlyArray<string>
  readonly encoded: ReadonlyArray<string>
  readonly left: ReadonlyArray<string>
  readonly error: unknown
}

/** A group that cannot be encoded must not keep the others from being told: they are halved until it is alone. */
const encode = (to: Announce, groups: ReadonlyArray<string>): Encoded => {
  try {
    return { payloads: to.encode(groups), encoded: groups, left: [], error: undefined }
  } catch (error) {
    if (groups.length === 1) return { payloads: [], encoded: [], left: groups, error }
    const middle = groups.length >>> 1
    const [a, b] = [encode(to, groups.slice(0, middle)), encode(to, groups.slice(middle))]
    return {
      payloads: a.payloads.concat(b.payloads),
      encoded: a.encoded.concat(b.encoded),
      left: a.left.concat(b.left),
      error
    }
  }
}

const untraced: Handle = {
  inside: (effect) => effect,
  annotate: () => {},
  step: (_name, _kind, _attributes, run) => run(untraced)
}

const tagOf = (error: unknown): string => {
  const reason = (error as { readonly reason?: { readonly _tag?: unknown } } | undefined)?.reason
  return typeof reason?._tag === "string" ? reason._tag : "Error"
}
