/**
 * An operation of a double: it records its calls and answers each as told.
 *
 * What a call comes to is, in this order: the next answer, the next of the
 * faults it suffers, what is said for every call, and else its work.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"

/** What happens to one call. Without a fault it succeeds at once. */
export type Fault =
  | { readonly _tag: "Delay"; readonly millis: number }
  | {
      readonly _tag: "Fail"
      readonly reason: "Unavailable" | "Canceled" | "Rejected"
      readonly millis: number
    }
  | { readonly _tag: "Die" | "Throw" | "Interrupt" }
  /** No answer, ever. */
  | { readonly _tag: "Hang"; readonly interruptible: boolean }
  /** Takes its time, does its work and answers, whoever has stopped waiting. */
  | { readonly _tag: "Late"; readonly millis: number }
  /** Does its work, and the connection is lost before the answer. */
  | { readonly _tag: "AnswerLost" }

/** One call, and how it went. */
export interface Call<Request, A = unknown> {
  readonly request: Request
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  endedAt: number | undefined
  outcome: "running" | "succeeded" | "failed"
  /** What it was answered. */
  result: A | undefined
  /** Whether whoever called has stopped waiting. */
  readonly isGivenUp: () => boolean
}

export interface Script<Request, A, E> {
  readonly run: (request: Request) => Effect.Effect<A, E>
  readonly log: ReadonlyArray<Call<Request, A>>
  /** The request of every call so far, and of those that succeeded. */
  readonly calls: ReadonlyArray<Request>
  readonly succeeded: ReadonlyArray<Request>
  /** When each call came, in milliseconds since the epoch. */
  readonly times: ReadonlyArray<number>
  /** The next call that nobody has asked for yet, once it has come. */
  readonly began: Effect.Effect<Request>
  /** The same, once it has been answered. */
  readonly ended: Effect.Effect<Request>
  /** How the next calls are answered, one each; what gives nothing lets the call do its work. */
  readonly answer: (...answers: ReadonlyArray<Effect.Effect<A | void, E>>) => void
  /** How every call is answered that has no answer of its own. */
  readonly answerAll: (answer: (request: Request) => Effect.Effect<A | void, E>) => void
  /** Answers the next call as said, or lets it do its work, once the latch is opened. */
  readonly hold: (answer?: Effect.Effect<A | void, E>) => Latch.Latch
  /** What the calls suffer from now on, in this order and over again; none is a good day. */
  readonly suffer: (faults: ReadonlyArray<Fault>) => void
}

export const make = <Request, A, E>(how: {
  readonly work: (request: Request) => Effect.Effect<A, E>
  readonly fail: (reason: "Unavailable" | "Canceled" | "Rejected", cause: Error) => E
  readonly onCall?: (call: Call<Request>) => void
  /** What an answer gave, if that is a result: it stands for the work. */
  readonly given?: (request: Request, answer: unknown) => A | undefined
}): Effect.Effect<Script<Request, A, E>> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const [began, ended] = [yield* Queue.unbounded<Request>(), yield* Queue.unbounded<Request>()]
    const log: Array<Call<Request, A>> = []
    const answers: Array<Effect.Effect<A | void, E>> = []
    let answerAll: ((request: Request) => Effect.Effect<A | void, E>) | undefined
    let faults: ReadonlyArray<Fault> = []
    let position = 0

    const answerTo = (request: Request): Effect.Effect<A, E> => {
      const work = Effect.suspend(() => how.work(request))
      const given = answers.shift()
      const fault =
        given !== undefined || faults.length === 0 ? undefined : faults[position++ % faults.length]
      if (fault !== undefined) return sufferOne(fault, work, how.fail)
      const answer = given ?? answerAll?.(request)
      if (answer === undefined) return work
      return Effect.flatMap(answer, (answered) => {
        const result = how.given?.(request, answered)
        return result === undefined ? work : Effect.succeed(result)
      })
    }

    return {
      run: (request) =>
        Effect.withFiber((fiber) => {
          const call: Call<Request, A> = {
            request,
            startedAt: now(),
            endedAt: undefined,
            outcome: "running",
            result: undefined,
            isGivenUp: () => isInterrupted(fiber)
          }
          const end = (exit: Exit.Exit<A, E>) =>
            Effect.sync(() => {
              const isHeard = Exit.isSuccess(exit) && !isInterrupted(fiber)
              call.endedAt = now()
              call.outcome = isHeard ? "succeeded" : "failed"
              if (isHeard) call.result = exit.value
              Queue.offerUnsafe(ended, request)
            })
          how.onCall?.(call)
          log.push(call)
          Queue.offerUnsafe(began, request)
          return Effect.onExit(
            Effect.suspend(() => answerTo(request)),
            end
          )
        }),
      log,
      get calls() {
        return log.map(({ request }) => request)
      },
      get succeeded() {
        return log.filter(({ outcome }) => outcome === "succeeded").map(({ request }) => request)
      },
      get times() {
        return log.map(({ startedAt }) => startedAt)
      },
      began: Queue.take(began),
      ended: Queue.take(ended),
      answer: (...more) => {
        answers.push(...more)
      },
      answerAll: (answer) => {
        answers.length = 0
        answerAll = answer
      },
      hold: (answer = Effect.void) => {
        const latch = Latch.makeUnsafe()
        answers.push(Effect.andThen(latch.await, answer))
        return latch
      },
      suffer: (next) => {
        faults = next
        position = 0
      }
    }
  })

// What cannot be interrupted still knows that it was to be; the type does not say so.
const isInterrupted = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  (fiber as unknown as { readonly _interruptedCause: unknown })._interruptedCause !== undefined

const sufferOne = <A, E>(
  fault: Fault,
  work: Effect.Effect<A, E>,
  fail: (reason: "Unavailable" | "Canceled" | "Rejected", cause: Error) => E
): Effect.Effect<A, E> => {
  switch (fault._tag) {
    case "Delay":
      return Effect.delay(work, fault.millis)
    case "Fail":
      return Effect.delay(Effect.fail(fail(fault.reason, new Error("down"))), fault.millis)
    case "Die":
      return Effect.die(new Error("a defect"))
    case "Throw":
      throw new Error("thrown by the callee")
    case "Interrupt":
      return Effect.interrupt
    case "Hang":
      return fault.interruptible ? Effect.never : Effect.uninterruptible(Effect.never)
    case "Late":
      return Effect.uninterruptible(Effect.delay(work, fault.millis))
    case "AnswerLost":
      return Effect.andThen(work, Effect.fail(fail("Unavailable", new Error("connection lost"))))
  }
}
