/**
 * Does everything once that this library does with a PostgreSQL through
 * PgBouncer, with a hot standby for reads, and over a failover; prints the table
 * of what worked. What is not on the PATH is left out and said so.
 *
 *   node scripts/soak/poolers.ts
 */
import { execFileSync } from "node:child_process"
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { AgentId } from "../../src/AgentId.ts"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import * as MetadataWatcher from "../../src/MetadataWatcher.ts"
import * as PgMigrations from "../../src/PgMigrations.ts"
import * as PgPubsub from "../../src/PgPubsub.ts"
import * as PgStore from "../../src/PgStore.ts"
import { Store } from "../../src/Store.ts"
import { find, freePort, nobody, startPgBouncer } from "../cluster/programs.ts"
import * as Proxy from "../cluster/proxy.ts"
import { endToEnd, steps } from "./endToEnd.ts"

const say = (what: string, outcomes: Readonly<Record<string, string>>) =>
  console.log(`| ${what} | ${steps.map((step) => outcomes[step] ?? "").join(" | ")} |`)

const silently = <A, E>(effect: Effect.Effect<A, E>): Promise<A> =>
  Effect.runPromise(Effect.provideService(effect, References.MinimumLogLevel, "None"))

const throughPgBouncer = (
  program: string,
  mode: "transaction" | "session",
  settings: { readonly prepare: boolean; readonly listenDirectly: boolean }
) =>
  Effect.gen(function* () {
    const { config } = yield* EmbeddedPostgres.make({ settings: { fsync: "off" } })
    const pooler = yield* Effect.acquireRelease(
      Effect.promise(() =>
        startPgBouncer({
          program,
          host: String(config.host),
          mode,
          poolSize: mode === "transaction" ? 3 : 20
        })
      ),
      ({ stop }) => Effect.promise(stop)
    )
    const { database, username } = config
    const client = { host: "127.0.0.1", port: pooler.port, database, username, prepare: settings.prepare }
    // Another application, so that a server connection is not always the same one's.
    yield* Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const work = Effect.suspend(() => sql`SELECT ${Math.random()}::float8, pg_sleep(0.005 * random())`)
      const fibers = Array.from({ length: 2 }, () => Effect.forever(Effect.ignore(work)))
      yield* Effect.all(fibers, { concurrency: "unbounded" })
    }).pipe(Effect.provide(PgClient.layer({ ...client, maxConnections: 2 })), Effect.forkScoped)
    return yield* endToEnd({ client, listen: settings.listenDirectly ? config : undefined })
  }).pipe(Effect.scoped)

const agentId = AgentId.make("00000000-0000-4000-8000-000000000001")

/** A standby of a server, streaming from it. */
const makeStandby = (programs: string, primary: PgClient.PgPoolConfig) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const directory = mkdtempSync(join(tmpdir(), "standby-"))
      const owner = nobody()
      if (owner.uid !== undefined && owner.gid !== undefined) chownSync(directory, owner.uid, owner.gid)
      const run = (program: string, ...args: ReadonlyArray<string>) =>
        execFileSync(join(programs, program), args, { ...owner, cwd: directory, stdio: "ignore" })
      const data = join(directory, "data")
      const port = await freePort()
      run(
        "pg_basebackup",
        "-h",
        String(primary.host),
        "-U",
        "postgres",
        "-D",
        data,
        "-R",
        "-X",
        "stream",
        "-c",
        "fast"
      )
      const options = `-c port=${port} -c listen_addresses= -c unix_socket_directories=${directory}`
      run("pg_ctl", "-D", data, "-l", join(directory, "log"), "-o", options, "-w", "start")
      return {
        config: { ...primary, host: directory, port },
        socket: join(directory, `.s.PGSQL.${port}`),
        promote: Effect.sync(() => run("pg_ctl", "-D", data, "-w", "promote")),
        stop: () => {
          run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
          rmSync(directory, { recursive: true, force: true })
        }
      }
    }),
    ({ stop }) => Effect.sync(stop)
  )

const fact = (value: string) =>
  Effect.map(DateTime.now, (collectedAt) => [{ key: "cpu", value, error: "", collectedAt }])

const seen = (watcher: MetadataWatcher.MetadataWatcher["Service"], value: string) =>
  watcher.watch(agentId).pipe(
    Stream.takeUntil(({ facts }) => facts.some((fact) => fact.value === value)),
    Stream.runDrain,
    Effect.timeout("20 seconds")
  )

/** Reads from the standby and writes to the primary; then the standby takes over. */
const withStandby = (programs: string) =>
  Effect.gen(function* () {
    const primary = yield* EmbeddedPostgres.make({ programs })
    const standby = yield* makeStandby(programs, primary.config)
    const socket = join(String(primary.config.host), ".s.PGSQL.5432")
    const proxy = yield* Effect.acquireRelease(
      Effect.promise(() => Proxy.start({ path: socket })),
      ({ close }) => Effect.promise(close)
    )
    const { database, username } = primary.config
    const client = PgClient.layer({ host: "127.0.0.1", port: proxy.port, database, username })
    const reader = yield* Effect.map(
      Layer.build(PgStore.layer().pipe(Layer.provide(PgClient.layer(standby.config)))),
      (context) => Context.get(context, Store)
    )
    yield* Effect.provide(PgMigrations.run(), client)
    const live = Layer.mergeAll(
      MetadataBatcher.layer({ interval: "50 millis" }),
      MetadataWatcher.layer({ minInterval: "10 millis", refreshInterval: "1 second" })
    ).pipe(
      Layer.provide([
        PgStore.layer(),
        PgPubsub.layer({ heartbeat: "1 second", maxReconnectDelay: "1 second" })
      ]),
      Layer.provide(client)
    )
    yield* Effect.gen(function* () {
      const batcher = yield* MetadataBatcher.MetadataBatcher
      const watcher = yield* MetadataWatcher.MetadataWatcher
      yield* batcher.add(agentId, yield* fact("one"))
      yield* batcher.flush
      yield* Effect.repeat(
        Effect.orElseSucceed(reader.metadataOf([agentId]), () => []),
        {
          until: (agents) => agents[0]?.facts[0]?.value === "one",
          schedule: Schedule.spaced("50 millis")
        }
      ).pipe(Effect.timeout("20 seconds"))
      console.log("| a hot standby | reads what was written to the primary: ok |")
      yield* primary.stop("immediate")
      proxy.cut()
      yield* batcher.add(agentId, yield* fact("two"))
      yield* standby.promote
      proxy.point({ path: standby.socket })
      yield* seen(watcher, "two")
      console.log(
        "| a failover to it | what was added meanwhile is written, and shown by a watcher of before: ok |"
      )
    }).pipe(Effect.provide(live))
  }).pipe(Effect.scoped)

const pgbouncer = find("pgbouncer")
if (pgbouncer === undefined) console.log("left out: PgBouncer is not on the PATH (apt-get install pgbouncer)")
else {
  const version = execFileSync(pgbouncer, ["--version"], { encoding: "utf8" }).split("\n")[0]
  console.log(`| ${version}, PostgreSQL 18 | ${steps.join(" | ")} |`)
  console.log(`| ${["---", ...steps.map(() => "---")].join(" | ")} |`)
  for (const mode of ["session", "transaction"] as const) {
    for (const prepare of [true, false]) {
      for (const listenDirectly of [true, false]) {
        const how = `${mode} mode, prepare ${prepare}, listening ${listenDirectly ? "past" : "through"} it`
        say(how, await silently(throughPgBouncer(pgbouncer, mode, { prepare, listenDirectly })))
      }
    }
  }
}

const debian = "/usr/lib/postgresql"
const withBackup = [
  find("pg_basebackup"),
  ...(existsSync(debian) ? readdirSync(debian) : []).map((major) => join(debian, major, "bin/pg_basebackup"))
]
const basebackup = withBackup.find(
  (path) => path !== undefined && existsSync(join(dirname(path), "postgres"))
)
if (basebackup === undefined) console.log("left out: no pg_basebackup (apt-get install postgresql)")
else {
  console.log(
    `\n| ${execFileSync(join(dirname(basebackup), "postgres"), ["--version"], { encoding: "utf8" }).trim()} | outcome |\n| --- | --- |`
  )
  await silently(withStandby(dirname(basebackup)))
}
