/** A cluster of replicas on one database, its fleet, its watchers and its bad days. */
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as Audit from "./audit.ts"
import * as Chaos from "./chaos.ts"
import * as Fleet from "./fleet.ts"
import * as Programs from "./programs.ts"
import * as Redis from "./redis.ts"
import * as Replica from "./replica.ts"
import * as Watcher from "./watcher.ts"

export interface Options {
  readonly seed: number
  readonly replicas: number
  readonly agents: number
  /** How long things happen, in as many rounds; an audit follows each. */
  readonly seconds: number
  readonly rounds: number
  /** The program, to put between the replicas and the database. */
  readonly pgbouncer?: string | undefined
  /** The program, to carry the notifications instead of PostgreSQL. */
  readonly redis?: string | undefined
  readonly say: (what: string) => void
}

export interface Verdict {
  readonly faults: ReadonlyArray<string>
  readonly accepted: number
  /** Of each round, until every watcher showed what the table holds. */
  readonly convergenceMillis: ReadonlyArray<number>
  /** Streams that were opened. */
  readonly connects: number
}

/** A lost notification is made good after 30 seconds at the latest; a replica has to start before. */
const convergenceLimit = 60_000

const selectTable = `
SELECT workspace_agent_id::text AS "agentId", key, value, (extract(epoch FROM collected_at) * 1000)::float8 AS at
FROM workspace_agent_metadata`

/** More than a flush interval, so that reports are held and being written at any time after it. */
const loadMillis = 700

/** Watchers of a replica share the agents. */
const watchersPerReplica = 2

const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

const release = <A>(acquire: () => Promise<A>, close: (a: A) => Promise<unknown>) =>
  Effect.acquireRelease(promise(acquire), (a) => promise(() => close(a)))

export const run = Effect.fnUntraced(function* (options: Options) {
  const { agents, rounds, say, seconds } = options
  const random = Chaos.seeded(options.seed)
  const server = yield* EmbeddedPostgres.make({ settings: { fsync: "off" } })
  const host = String(server.config.host)
  const client = yield* Layer.build(
    PgMigrations.layer().pipe(Layer.provideMerge(PgClient.layer(server.config)))
  )
  const sql = Context.get(client, PgClient.PgClient)

  const { pgbouncer } = options
  const pooler =
    pgbouncer === undefined
      ? undefined
      : yield* release(
          () => Programs.startPgBouncer({ program: pgbouncer, host, mode: "session", poolSize: 90 }),
          ({ stop }) => stop()
        )
  const database =
    pooler === undefined ? { path: join(host, ".s.PGSQL.5432") } : { host: "127.0.0.1", port: pooler.port }

  const { redis: redisProgram } = options
  const redis =
    redisProgram === undefined
      ? undefined
      : yield* release(
          () => Redis.start(redisProgram),
          ({ close }) => close()
        )
  const settings = {
    flags: ["--flush-interval", "500ms"],
    environment: redis === undefined ? {} : { EMB_REDIS_URL: redis.url }
  }

  const replicas = yield* Effect.forEach(
    Array.from({ length: options.replicas }, (_, n) => `replica ${n + 1}`),
    (name) =>
      release(
        () => Replica.make(name, database, settings),
        ({ close }) => close()
      )
  )
  yield* promise(() => Promise.all(replicas.map(({ start }) => start())))

  const ids = Array.from({ length: agents }, (_, agent) => Fleet.agentIdOf(agent))
  const watchers = yield* Effect.forEach(
    replicas.flatMap((replica) =>
      Array.from({ length: watchersPerReplica }, (_, part) => ({ replica, part }))
    ),
    ({ part, replica }) =>
      release(
        async () =>
          Watcher.start(
            replica,
            ids.filter((_, agent) => agent % watchersPerReplica === part)
          ),
        ({ close }) => close()
      )
  )
  const fleet = Fleet.make({ agents, replicas, random })

  const readTable = Effect.orElseSucceed(sql.unsafe<Audit.Row>(selectTable).withoutTransform, () => undefined)

  /** What is wrong once nothing happens any more; nothing as soon as all is well. */
  const audit = Effect.gen(function* () {
    const start = performance.now()
    while (true) {
      const table = yield* readTable
      const faults =
        table === undefined
          ? ["the table cannot be read"]
          : [...Audit.lost(fleet, table), ...watchers.flatMap((watcher) => Audit.stale(watcher, table))]
      const millis = performance.now() - start
      if (faults.length === 0 || millis > convergenceLimit) return { faults, millis }
      yield* Effect.sleep(50)
    }
  })
  const crashDatabase = () => Effect.runPromise(Effect.andThen(server.stop("immediate"), server.start))

  /** Lets agents report while something happens. */
  const underLoad = (what: () => Promise<unknown>) =>
    promise(async () => {
      let isStopped = false
      const reporting = fleet.run(() => isStopped)
      await what()
      isStopped = true
      await reporting
    })
  const rage = () =>
    Chaos.rage({
      replicas,
      random,
      millis: (seconds * 1_000) / rounds,
      crashDatabase,
      redis: redis?.mishaps,
      say
    })
  // Whatever the seed has in store, these two happen with something held.
  const crash = async () => {
    await setTimeout(loadMillis)
    say("the database crashes and restarts, at last")
    await crashDatabase()
  }
  const stopAll = async () => {
    await setTimeout(loadMillis)
    await Promise.all(replicas.map(({ stop }) => stop()))
  }

  const convergenceMillis: Array<number> = []
  for (const what of [...Array.from({ length: rounds }, () => rage), crash]) {
    yield* underLoad(what)
    const { faults, millis } = yield* audit
    say(`audit: ${faults.length === 0 ? `all well after ${Math.round(millis)} ms` : faults.join("; ")}`)
    convergenceMillis.push(millis)
    if (faults.length > 0) return verdict(faults)
  }
  yield* underLoad(stopAll)
  const bad = replicas
    .filter((replica) => replica.life().end !== "well")
    .map((replica) => `${replica.name} did not end well: ${replica.life().output.slice(-300)}`)
  const table = (yield* readTable) ?? []
  return verdict([...bad, ...Audit.lost(fleet, table)])

  function verdict(faults: ReadonlyArray<string>): Verdict {
    return {
      faults,
      accepted: fleet.accepted(),
      convergenceMillis,
      connects: watchers.reduce((sum, watcher) => sum + watcher.connects(), 0)
    }
  }
}, Effect.scoped)
