/**
 * Watchers of a database that is written to, while the backend that listens for
 * them is killed over and over and the server crashes. What they show in the end
 * is compared with the table.
 *
 * Nothing is refreshed within the time this takes: what is missed has to be made
 * good because of the connection that was lost.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { EmbeddedPostgres } from "../../src/app/EmbeddedPostgres.ts"
import type { AgentMetadata } from "../../src/Metadata.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../../src/MetadataWatcher.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import { Pubsub } from "../../src/Pubsub.ts"
import { Store } from "../../src/Store.ts"
import { agentIds } from "../bench/workload.ts"

export interface Verdict {
  readonly watchers: number
  readonly written: number
  /** Listening backends that were killed. */
  readonly kills: number
  readonly restarts: number
  readonly shown: number
  /** States that were marked as stale. */
  readonly shownStale: number
  /** Watchers that do not show what the table holds in the end. */
  readonly stale: number
  readonly ended: number
  /** How often a watcher was shown an older value of a key. */
  readonly regressions: number
}

const keys = ["cpu", "disk", "memory"]

const show = (facts: AgentMetadata["facts"]): string =>
  facts
    .map(({ key, value }) => `${key}=${value}`)
    .sort()
    .join(" ")

const killListener = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'effect-metadata-batcher/listen'`
)

/** Asks again until it is so, or for 30 seconds. */
const eventually = (isSo: Effect.Effect<boolean, unknown>) =>
  Effect.repeat(
    Effect.orElseSucceed(isSo, () => false),
    {
      until: (answer) => answer,
      schedule: Schedule.spaced("20 millis")
    }
  ).pipe(Effect.timeoutOption("30 seconds"), Effect.map(Option.isSome))

const watchAll = Effect.fnUntraced(function* (
  watcher: MetadataWatcher.MetadataWatcher["Service"],
  agents: ReturnType<typeof agentIds>,
  each: number
) {
  const counts = { shown: 0, shownStale: 0, regressions: 0 }
  const viewers = yield* Effect.forEach(
    agents.flatMap((agentId) => Array.from({ length: each }, () => agentId)),
    Effect.fnUntraced(function* (agentId) {
      const viewer = { agentId, last: undefined as MetadataWatcher.View | undefined, hasEnded: () => false }
      const newest = new Map<string, number>()
      const look = (view: MetadataWatcher.View) =>
        Effect.sync(() => {
          viewer.last = view
          counts.shown += 1
          if (view.staleSince !== undefined) counts.shownStale += 1
          for (const { collectedAt, key } of view.facts) {
            if (collectedAt.epochMilliseconds < (newest.get(key) ?? 0)) counts.regressions += 1
            newest.set(key, collectedAt.epochMilliseconds)
          }
        })
      const fiber = yield* Effect.forkScoped(Stream.runForEach(watcher.watch(agentId), look))
      viewer.hasEnded = () => fiber.pollUnsafe() !== undefined
      return viewer
    })
  )
  return { counts, viewers }
})

/** Runs on an empty table of the server in context. */
export const disturb = Effect.fnUntraced(function* (options: {
  readonly agents: number
  readonly kills: number
  readonly restarts: number
}) {
  const server = yield* EmbeddedPostgres
  const store = yield* PgStore.make()
  const pubsub = yield* PgPubsub.make({ maxReconnectDelay: "200 millis" })
  const batcher = yield* MetadataBatcher.make({ interval: "50 millis" }).pipe(
    Effect.provideService(Store, store),
    Effect.provideService(Pubsub, pubsub)
  )
  const watcher = yield* MetadataWatcher.make({ minInterval: "50 millis", refreshInterval: "1 hour" }).pipe(
    Effect.provideService(Store, store),
    Effect.provideService(Pubsub, pubsub)
  )
  const agents = agentIds(options.agents)
  const { counts, viewers } = yield* watchAll(watcher, agents, 2)

  let written = 0
  let at = Date.now()
  const writing = yield* Effect.sync(() => {
    at = Math.max(at + 1, Date.now())
    for (let i = 0; i < 20; i++) {
      const agentId = agents[written % agents.length]
      const key = keys[written % keys.length]
      if (agentId === undefined || key === undefined) return
      batcher.addUnsafe(agentId, [
        { key, value: `${written++}`, error: "", collectedAt: DateTime.makeUnsafe(at) }
      ])
    }
  }).pipe(Effect.repeat(Schedule.spaced("10 millis")), Effect.forkScoped)

  let kills = 0
  let restarts = 0
  const every = Math.ceil(options.kills / (options.restarts + 1))
  while (kills < options.kills) {
    yield* Effect.sleep("100 millis")
    const killed = yield* Effect.exit(killListener)
    if (Exit.isSuccess(killed) && killed.value.length > 0) kills += 1
    if (kills === every * (restarts + 1) && restarts < options.restarts) {
      restarts += 1
      yield* server.stop("immediate")
      yield* Effect.sleep("300 millis")
      yield* server.start
    }
  }
  yield* Effect.sleep("100 millis")
  yield* Fiber.interrupt(writing)
  yield* eventually(
    Effect.andThen(
      batcher.flush,
      Effect.map(batcher.accounting, ({ inFlight, pending, queued }) => inFlight + pending + queued === 0)
    )
  )

  const held = new Map((yield* store.metadataOf(agents)).map(({ agentId, facts }) => [agentId, show(facts)]))
  const stale = () =>
    viewers.filter(({ agentId, last }) => show(last?.facts ?? []) !== held.get(agentId)).length
  yield* eventually(Effect.sync(() => stale() === 0))
  return {
    watchers: viewers.length,
    written,
    kills,
    restarts,
    ...counts,
    stale: stale(),
    ended: viewers.filter(({ hasEnded }) => hasEnded()).length
  } satisfies Verdict
}, Effect.scoped)

/** What is wrong with it, nothing if all is well. */
export const faultsOf = ({ ended, regressions, shown, stale, watchers }: Verdict): ReadonlyArray<string> => [
  ...(stale === 0 ? [] : [`${stale} watchers show what the table no longer holds`]),
  ...(ended === 0 ? [] : [`${ended} streams ended`]),
  ...(regressions === 0 ? [] : [`${regressions} times a watcher went back in time`]),
  ...(shown > 5 * watchers ? [] : [`only ${shown} states were shown`])
]
