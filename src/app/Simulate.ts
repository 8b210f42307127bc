/**
 * `simulate`: a fleet of agents reports through both batchers into PostgreSQL,
 * a subscriber watches, and at the end everything has to add up.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Command from "effect/cli/Command"
import type * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as MetadataBatcher from "../MetadataBatcher.ts"
import * as MetadataWatcher from "../MetadataWatcher.ts"
import * as PgMigrations from "../PgMigrations.ts"
import * as PgPubsub from "../PgPubsub.ts"
import * as PgStore from "../PgStore.ts"
import * as StatsBatcher from "../StatsBatcher.ts"
import { Store } from "../Store.ts"
import * as Dashboard from "./Dashboard.ts"
import { count } from "./DashboardLayout.ts"
import * as Database from "./Database.ts"
import { EmbeddedPostgres } from "./EmbeddedPostgres.ts"
import * as Ending from "./Ending.ts"
import * as Flags from "./Flags.ts"
import * as Fleet from "./Fleet.ts"
import * as MetricsServer from "./MetricsServer.ts"
import * as Outage from "./Outage.ts"
import * as Remote from "./Remote.ts"
import * as Screen from "./Screen.ts"
import * as Secrets from "./Secrets.ts"
import * as Telemetry from "./Telemetry.ts"
import * as UserError from "./UserError.ts"
import * as Verdict from "./Verdict.ts"
import * as Watch from "./Watch.ts"

const flags = {
  agents: Flags.count("agents", 200, "Agents that report"),
  facts: Flags.count("facts", 10, "Facts per report"),
  interval: Flags.duration("interval", "1s", "Time between two reports of an agent"),
  rate: Flags.optionalCount("rate", "Facts per second of all agents together, instead of --interval"),
  bursts: Flags.yes("bursts", "All agents report at the same moment instead of evenly spread"),
  badShare: Flags.share("bad-share", "Share of the facts that carry an error instead of a value"),
  unchangedShare: Flags.share("unchanged-share", "Share of the facts that are as they were before"),
  url: Flags.optionalText(
    "url",
    "Report to the server at this address, instead of to batchers in this process"
  ),
  tokenFile: Secrets.tokenFile,
  statsInterval: Flags.duration(
    "stats-interval",
    "5s",
    "Time between two reports of an agent's connections; real ones take 30s"
  ),
  duration: Flags.optionalDuration("duration", "Stop after this time; otherwise at Ctrl-C"),
  batchSize: Flags.count("batch-size", 500, "Facts per batch"),
  flushInterval: Flags.duration("flush-interval", "5s", "Time until a batch is written that is not full"),
  outage: Flags.optionalDuration("outage", "Kill the database and start it again after this time"),
  outageAfter: Flags.duration("outage-after", "15s", "When to kill it"),
  unlogged: Flags.unlogged,
  metricsPort: Flags.count("metrics-port", 0, "Port of the metrics on 127.0.0.1; 0 takes any free one", 0)
} as const

type Options = {
  readonly [Name in keyof typeof flags]: (typeof flags)[Name] extends Flag.Flag<infer A> ? A : never
}

/** The interval, which the rate decides if it is given. */
const fleetOf = (options: Options): Fleet.Options => ({
  ...options,
  interval: Option.match(options.rate, {
    onNone: () => options.interval,
    onSome: (rate) => Duration.millis((options.agents * options.facts * 1_000) / rate)
  })
})

const titleOf = (options: Options): string =>
  `${count(options.agents)} agents × ${count(options.facts)} facts every ${Duration.format(fleetOf(options).interval)}`

const makeOutage = Effect.fnUntraced(function* ({ outage, outageAfter }: Options) {
  const server = yield* Effect.serviceOption(EmbeddedPostgres)
  return Option.isSome(outage) && Option.isSome(server)
    ? Outage.make(server.value, { after: outageAfter, lasting: outage.value })
    : undefined
})

const greet = Effect.fnUntraced(function* () {
  const screen = yield* Screen.Screen
  const { config } = yield* PgClient.PgClient
  const server = yield* Effect.serviceOption(EmbeddedPostgres)
  yield* screen.print(
    Option.isSome(server)
      ? `PostgreSQL   psql -h ${config.host} -U ${config.username}   (process ${yield* server.value.processId})`
      : "PostgreSQL   the one that DATABASE_URL names"
  )
  yield* HttpServer.addressFormattedWith((url) => screen.print(`metrics      ${url}/metrics`))
})

const batchers = (options: Options) =>
  Layer.mergeAll(
    MetadataBatcher.layer({ maxBatchSize: options.batchSize, interval: options.flushInterval }),
    StatsBatcher.layer()
  )

const run = Effect.fnUntraced(function* (options: Options) {
  const screen = yield* Screen.Screen
  const store = yield* Store
  const outage = yield* makeOutage(options)
  const fleet = Fleet.make(fleetOf(options))
  const watch = yield* Watch.make(fleet.agentIds)
  yield* greet()

  // Closed before the rest, so that what follows sees everything written.
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(
    Layer.provide(batchers(options), Layer.succeed(Store, watch.observe(store))),
    scope
  )
  const metadata = Context.get(context, MetadataBatcher.MetadataBatcher)
  const stats = Context.get(context, StatsBatcher.StatsBatcher)

  const dashboard = yield* Dashboard.make({ title: titleOf(options), metadata, stats, watch })
  const drawing = yield* Effect.forkScoped(dashboard.run)

  const working = Effect.raceAllFirst([
    Effect.ensuring(
      fleet.run({ metadata: metadata.add, stats: stats.add }),
      screen.print("stopping: writing what is left (Ctrl-C again to quit at once)")
    ),
    outage?.run ?? Effect.never,
    Option.match(options.duration, { onNone: () => Effect.never, onSome: Effect.sleep })
  ])
  yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const worked = yield* Effect.exit(restore(working))
      yield* Scope.close(scope, Exit.void)
      // What was written last may still be on its way to be shown.
      yield* Effect.sleep("400 millis")
      yield* Fiber.interrupt(drawing)
      yield* dashboard.draw
      yield* screen.keep
      const memory = outage?.memory()
      if (memory !== undefined) yield* screen.print(memory)
      yield* Ending.after(
        worked,
        Verdict.pronounce(fleet, yield* metadata.accounting, yield* stats.accounting)
      )
    })
  )
})

const layer = ({ metricsPort, unlogged }: Options) =>
  Layer.mergeAll(MetadataWatcher.layer(), MetricsServer.layer(metricsPort)).pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        PgStore.layer(),
        // After an outage, notifications resume within a second, for all to see.
        PgPubsub.layer({ maxReconnectDelay: "1 second" })
      )
    ),
    // First, since the store looks at its tables.
    Layer.provideMerge(PgMigrations.layer({ unlogged })),
    Layer.provideMerge(Database.layer),
    Layer.provideMerge(Telemetry.layer),
    Layer.provideMerge(Screen.layer)
  )

/**
 * @category commands
 * @since 0.1.0
 */
export const command = Command.make(
  "simulate",
  flags,
  Effect.fnUntraced(function* (options) {
    if (Option.isSome(options.url)) {
      const token = yield* Secrets.token(options.tokenFile)
      return yield* Remote.run({
        title: titleOf(options),
        fleet: fleetOf(options),
        url: options.url.value,
        token,
        duration: options.duration
      }).pipe(Effect.provide(Screen.layer))
    }
    if (Option.isSome(options.outage) && !(yield* Database.isEmbedded)) {
      return yield* UserError.make(
        "--outage kills the database, which is not for us to do to that of DATABASE_URL"
      )
    }
    yield* run(options).pipe(Effect.scoped, Effect.provide(layer(options)))
  }, Effect.mapError(UserError.toUserError))
).pipe(
  Command.withDescription(
    "Simulate a fleet of agents, and check at the end that nothing was lost: on a PostgreSQL of the demo's own, on the one that DATABASE_URL names, or against the server that --url names."
  ),
  Command.withShortDescription("Simulate a fleet of agents"),
  Command.withExamples([
    {
      command: "simulate --agents 2000 --outage 10s",
      description: "With an outage of the database in between"
    },
    {
      command: "simulate --url http://127.0.0.1:3000 --agents 500 --rate 10000 --bursts",
      description: "10,000 facts per second over HTTP, all at once each time"
    }
  ])
)
