/**
 * A simulated fleet that reports over HTTP, and asks the server at the end
 * whether it has all that it said it took.
 *
 * @since 0.1.0
 */

import * as Clock from "effect/Clock"
import type * as CliError from "effect/cli/CliError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type * as HttpClient from "effect/http/HttpClient"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type { AgentId } from "../AgentId.ts"
import type { Metadata } from "../Metadata.ts"
import * as Client from "./Client.ts"
import { count } from "./DashboardLayout.ts"
import * as Ending from "./Ending.ts"
import * as Fleet from "./Fleet.ts"
import { Screen } from "./Screen.ts"
import * as UserError from "./UserError.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly title: string
  readonly fleet: Fleet.Options
  readonly url: string
  readonly token: Redacted.Redacted | undefined
  readonly duration: Option.Option<Duration.Duration>
}

/** Requests under way at once. */
const concurrency = 4

/** Reports in a request; their facts and keys stay far below the server's limits. */
const maxReports = 100

/** How long the server may take until what it accepted can be read. */
const patienceMs = 30_000

type Facts = ReadonlyArray<Metadata>

interface Tally {
  sent: number
  accepted: number
  dropped: number
  failed: number
  /** Why the last request failed. */
  why: string
  latencies: Array<number>
}

const percentile = (latencies: ReadonlyArray<number>, share: number): string => {
  const ascending = [...latencies].sort((a, b) => a - b)
  const millis = ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))]
  return millis === undefined ? "–" : `${Math.round(millis)} ms`
}

const progress = (title: string, seconds: number, tally: Tally): ReadonlyArray<string> => [
  `${title}, ${seconds} s`,
  `sent ${count(tally.sent)}  accepted ${count(tally.accepted)}  dropped ${count(tally.dropped)}  failed requests ${count(tally.failed)}${tally.why === "" ? "" : ` (${tally.why})`}  answered p50 ${percentile(tally.latencies, 0.5)} p99 ${percentile(tally.latencies, 0.99)}`
]

const makeSender = (client: Client.Client, clock: Clock.Clock) => {
  const tally: Tally = { sent: 0, accepted: 0, dropped: 0, failed: 0, why: "", latencies: [] }
  // What waits to be sent: the newest report of each agent, as a real agent would send it.
  const waiting = new Map<AgentId, Facts>()
  const accepted = new Map<AgentId, Facts>()

  const send = (reports: ReadonlyArray<readonly [AgentId, Facts]>) => {
    const begun = clock.currentTimeMillisUnsafe()
    const agents = reports.map(([agentId, facts]) => ({
      agentId,
      facts: facts.map(({ error, key, value }) => ({ key, value, error }))
    }))
    tally.sent += agents.reduce((sum, { facts }) => sum + facts.length, 0)
    // What a request that fails did is not known.
    for (const [agentId] of reports) accepted.delete(agentId)
    return client.report.metadataOfMany({ query: {}, payload: { agents } }).pipe(
      Effect.match({
        onSuccess: (answer) => {
          tally.accepted += answer.accepted
          tally.latencies.push(clock.currentTimeMillisUnsafe() - begun)
          if (tally.latencies.length > 1_000) tally.latencies.shift()
          for (const [agentId, facts] of reports) accepted.set(agentId, facts)
        },
        onFailure: (error) => {
          if (error._tag === "Dropped") {
            tally.accepted += error.accepted
            tally.dropped += error.dropped
            return
          }
          tally.failed += 1
          tally.why = error.message
        }
      })
    )
  }

  const flush = Effect.suspend(() => {
    const reports = Array.from(waiting)
    waiting.clear()
    const requests: Array<Effect.Effect<void>> = []
    for (let start = 0; start < reports.length; start += maxReports) {
      requests.push(send(reports.slice(start, start + maxReports)))
    }
    return Effect.all(requests, { concurrency, discard: true })
  })

  return { tally, waiting, accepted, flush }
}

/** Agents whose facts are not yet those that were accepted last. */
const countStale = (client: Client.Client, accepted: ReadonlyMap<AgentId, Facts>) =>
  Effect.map(
    Effect.forEach(
      accepted,
      ([id, facts]) =>
        client.agents.metadata({ params: { id }, query: {} }).pipe(
          Effect.map((agent) => {
            const held = new Map(agent.facts.map((fact) => [fact.key, fact]))
            const isHeld = ({ error, key, value }: Metadata) =>
              held.get(key)?.value === value && held.get(key)?.error === error
            return facts.every(isHeld) ? 0 : 1
          }),
          Effect.orElseSucceed(() => 1)
        ),
      { concurrency }
    ),
    (stale) => stale.reduce<number>((sum, one) => sum + one, 0)
  )

/**
 * Reports until the time is over or it is interrupted, and then checks.
 *
 * @category running
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(
  function* ({
    duration,
    fleet: options,
    title,
    token,
    url
  }: Options): Effect.fn.Return<void, Error, Screen | HttpClient.HttpClient> {
    const screen = yield* Screen
    const clock = yield* Clock.Clock
    const client = yield* Client.make({ url, token })
    // Says at once, and in one line, that the address or the token is wrong.
    yield* client.server.session()
    const { accepted, flush, tally, waiting } = makeSender(client, clock)
    const fleet = Fleet.make(options)
    const begun = clock.currentTimeMillisUnsafe()
    const seconds = () => Math.round((clock.currentTimeMillisUnsafe() - begun) / 1_000)

    const working = Effect.raceAllFirst([
      fleet.run({
        metadata: (agentId, facts) => Effect.sync(() => void waiting.set(agentId, facts)),
        // Statistics are for the batchers in process.
        stats: () => Effect.void
      }),
      Effect.forever(Effect.andThen(flush, Effect.sleep("100 millis"))),
      Effect.forever(
        Effect.andThen(
          Effect.sleep("1 second"),
          Effect.suspend(() => screen.draw(progress(title, seconds(), tally)))
        )
      ),
      Option.match(duration, { onNone: () => Effect.never, onSome: Effect.sleep })
    ])
    yield* Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const worked = yield* Effect.exit(restore(working))
        yield* flush
        yield* screen.draw(progress(title, seconds(), tally))
        yield* screen.keep
        const until = clock.currentTimeMillisUnsafe() + patienceMs
        let stale = yield* countStale(client, accepted)
        while (stale > 0 && clock.currentTimeMillisUnsafe() < until) {
          yield* Effect.sleep("500 millis")
          stale = yield* countStale(client, accepted)
        }
        yield* Ending.after(
          worked,
          stale === 0
            ? screen.print(`checked ${count(accepted.size)} agents: the server shows what it accepted last`)
            : Effect.fail(
                UserError.make(
                  `LOST: of ${count(stale)} agents the server does not show what it accepted last`
                )
              )
        )
      })
    )
  },
  Effect.mapError((error): CliError.UserError => UserError.toUserError(error)),
  Effect.provide(FetchHttpClient.layer)
)
