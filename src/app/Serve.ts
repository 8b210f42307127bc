/**
 * `serve`: the whole thing running, with an HTTP API and a live page.
 *
 * @since 0.1.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import type * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as MetadataBatcher from "../MetadataBatcher.ts"
import * as MetadataWatcher from "../MetadataWatcher.ts"
import * as PgMigrations from "../PgMigrations.ts"
import * as PgPubsub from "../PgPubsub.ts"
import * as PgRetention from "../PgRetention.ts"
import * as PgStore from "../PgStore.ts"
import type * as Pubsub from "../Pubsub.ts"
import * as StatsBatcher from "../StatsBatcher.ts"
import { count } from "./DashboardLayout.ts"
import * as Database from "./Database.ts"
import * as Ending from "./Ending.ts"
import * as Flags from "./Flags.ts"
import * as Fleet from "./Fleet.ts"
import * as Redis from "./Redis.ts"
import * as Screen from "./Screen.ts"
import * as Secrets from "./Secrets.ts"
import * as Lifecycle from "./serve/Lifecycle.ts"
import * as Server from "./serve/Server.ts"
import { defaults, isLoopback, type Settings } from "./serve/Settings.ts"
import * as StoreProbe from "./serve/StoreProbe.ts"
import * as Tokens from "./serve/Tokens.ts"
import * as Telemetry from "./Telemetry.ts"
import * as UserError from "./UserError.ts"

const flags = {
  host: Flags.text("host", defaults.host, "Address to listen on; any but loopback needs keys"),
  port: Flags.count("port", defaults.port, "Port to listen on; 0 takes any free one", 0),
  allowedHosts: Flags.text(
    "allowed-hosts",
    "",
    "Names under which it is reached, with commas between them; requests for others are refused"
  ),
  trustProxy: Flags.yes("trust-proxy", "Believe the X-Forwarded-Host of a proxy in front"),
  keyFile: Secrets.keyFile,
  maxBody: Flags.count("max-body", defaults.maxBody, "Bytes of a request's body, at most"),
  requestTimeout: Flags.duration("request-timeout", "10s", "Time for a request to arrive and be answered"),
  maxWatchers: Flags.count("max-watchers", defaults.maxWatchers, "Streams at once"),
  maxWatchersPerToken: Flags.count(
    "max-watchers-per-token",
    defaults.maxWatchersPerToken,
    "Streams at once of one token"
  ),
  watchInterval: Flags.duration("watch-interval", "1s", "Time between two events of one agent to a watcher"),
  drain: Flags.duration("drain", "0s", "Time to go on serving after it has said that it is not ready", 0),
  batchSize: Flags.count("batch-size", 500, "Facts per batch"),
  flushInterval: Flags.duration("flush-interval", "5s", "Time until a batch is written that is not full"),
  maxPending: Flags.count(
    "max-pending",
    defaults.maxPending,
    "Facts that may wait while the database is away"
  ),
  shutdownTimeout: Flags.duration("shutdown-timeout", "15s", "Time to write what is left at the end"),
  redisUrl: Redis.url,
  retainStats: Flags.optionalDuration(
    "retain-stats",
    "Delete connection statistics of this age, such as 30d; kept for ever without it"
  ),
  retainAgents: Flags.optionalDuration(
    "retain-agents",
    "Delete all facts of an agent that has not reported for so long; kept for ever without it"
  ),
  unlogged: Flags.unlogged,
  fleet: Flags.count("fleet", 0, "Simulated agents that report, to have something to see", 0),
  printConfig: Flag.Boolean("print-config").pipe(
    Flag.withDescription("Print what all of this comes to, without secrets, and end"),
    Flag.withDefault(false)
  )
} as const

type Options = {
  readonly [Name in keyof typeof flags]: (typeof flags)[Name] extends Flag.Flag<infer A> ? A : never
}

const split = (names: string): ReadonlyArray<string> => names.split(",").filter((name) => name !== "")

const toSettings = (options: Options): Settings => ({
  host: options.host,
  port: options.port,
  allowedHosts: split(options.allowedHosts),
  trustProxy: options.trustProxy,
  maxBody: options.maxBody,
  requestTimeoutMs: Duration.toMillis(options.requestTimeout),
  maxWatchers: options.maxWatchers,
  maxWatchersPerToken: options.maxWatchersPerToken,
  minIntervalMs: Duration.toMillis(options.watchInterval),
  drainMs: Duration.toMillis(options.drain),
  flushIntervalMs: Duration.toMillis(options.flushInterval),
  capacity: options.batchSize * 5,
  maxPending: options.maxPending
})

/** As a flag takes it; of a secret, only that there is one. */
const format = (value: unknown): string => {
  if (Option.isOption(value)) return format(Option.getOrElse(value, () => ""))
  if (Redacted.isRedacted(value)) return "<redacted>"
  return Duration.isDuration(value) ? `${Duration.toMillis(value)}ms` : `${value}`
}

/** The variables under which each setting may be given, with its value; a flag counts more. */
const printConfig = Effect.fnUntraced(function* (
  options: Options,
  keys: ReadonlyArray<Redacted.Redacted>
): Effect.fn.Return<void, Effect.Error<typeof Database.isEmbedded>> {
  const shown = Object.entries(options).flatMap(([name, value]) => {
    if (name === "printConfig") return []
    const variable = Flags.variableOf(name.replace(/[A-Z]/g, (letter) => `-${letter}`))
    return [`${variable}=${format(value)}`]
  })
  yield* Console.log(
    [
      ...shown,
      `EMB_KEY=${keys.length === 0 ? "" : `<${keys.length} redacted>`}`,
      `DATABASE_URL=${(yield* Database.isEmbedded) ? "" : "<redacted>"}`
    ].join("\n")
  )
})

/** Counts what was accepted and will be in no table, as it is given up. */
const makeLosses = () => {
  let records = 0
  const countThose =
    (reasons: ReadonlyArray<Reason>) =>
    (discarded: ReadonlyArray<{ readonly reason: Reason }>): Effect.Effect<void> =>
      Effect.sync(() => {
        records += discarded.filter(({ reason }) => reasons.includes(reason)).length
      })
  return {
    records: () => records,
    // What the store refused was never promised, and what was forgotten is no loss.
    ofMetadata: countThose(["failed", "unwritten"]),
    // A report of statistics that gives way to a newer one was the only one of its kind.
    ofStats: countThose(["failed", "unwritten", "evicted"])
  }
}

type Reason = MetadataBatcher.DiscardedFact["reason"]

const services = (options: Options, losses: ReturnType<typeof makeLosses>) =>
  Layer.mergeAll(
    MetadataBatcher.layer({
      maxBatchSize: options.batchSize,
      interval: options.flushInterval,
      maxPending: options.maxPending,
      shutdownTimeout: options.shutdownTimeout,
      onDiscarded: losses.ofMetadata
    }),
    StatsBatcher.layer({ shutdownTimeout: options.shutdownTimeout, onDiscarded: losses.ofStats }),
    MetadataWatcher.layer()
  )

const retentionLines = ({ retainAgents, retainStats }: Options): ReadonlyArray<string> => [
  ...Option.match(retainStats, {
    onNone: () => [],
    onSome: (age) => [`retention    statistics are deleted after ${Duration.format(age)}`]
  }),
  ...Option.match(retainAgents, {
    onNone: () => [],
    onSome: (age) => [`retention    agents are deleted ${Duration.format(age)} after their last report`]
  })
]

const greet = Effect.fnUntraced(function* (options: Options, keys: ReadonlyArray<Redacted.Redacted>) {
  const screen = yield* Screen.Screen
  const embedded = yield* Database.isEmbedded
  yield* HttpServer.addressFormattedWith((url) =>
    screen.print(
      [
        `page         ${url}/`,
        `API          ${url}/docs`,
        `metrics      ${url}/metrics`,
        `PostgreSQL   ${embedded ? "one of its own, gone when this ends" : "the one that DATABASE_URL names"}`,
        ...(Option.isSome(options.redisUrl)
          ? ["Redis        the one that --redis-url or EMB_REDIS_URL names, for notifications"]
          : []),
        ...retentionLines(options),
        ...(options.fleet > 0 ? [`fleet        ${count(options.fleet)} simulated agents`] : []),
        keys.length === 0
          ? "tokens       none needed: there is no key, so only this machine may connect"
          : `tokens       needed (${keys.length} ${keys.length === 1 ? "key" : "keys"}); effect-metadata-batcher token signs one`
      ].join("\n")
    )
  )
})

const verdict = (screen: Screen.Screen["Service"], lost: number): Effect.Effect<void, CliError.UserError> =>
  lost === 0
    ? screen.print("everything that was accepted is written")
    : Effect.fail(UserError.make(`LOST: ${count(lost)} records were accepted and not written`))

const run = Effect.fnUntraced(function* (
  options: Options,
  keys: ReadonlyArray<Redacted.Redacted>,
  tokens: Tokens.Tokens["Service"]
) {
  const screen = yield* Screen.Screen
  const losses = makeLosses()
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(
    Server.layer(toSettings(options)).pipe(
      Layer.provideMerge(services(options, losses)),
      Layer.provide(StoreProbe.layer),
      Layer.provide(Lifecycle.layer),
      Layer.provide(Layer.succeed(Tokens.Tokens, tokens))
    ),
    scope
  )
  yield* Effect.provideContext(greet(options, keys), context)
  const fleet = Fleet.make({
    agents: options.fleet,
    facts: 10,
    interval: Duration.seconds(1),
    statsInterval: Duration.seconds(5),
    // Something is always wrong somewhere, and some things hardly change.
    badShare: 0.005,
    unchangedShare: 0.5
  })
  const working =
    options.fleet === 0
      ? Effect.never
      : fleet.run({
          metadata: Context.get(context, MetadataBatcher.MetadataBatcher).add,
          stats: Context.get(context, StatsBatcher.StatsBatcher).add
        })
  yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const worked = yield* Effect.exit(restore(working))
      yield* screen.print("stopping: writing what is left (Ctrl-C again to quit at once)")
      yield* Scope.close(scope, Exit.void)
      yield* Ending.after(worked, verdict(screen, losses.records()))
    })
  )
})

const check = (
  { host }: Options,
  keys: ReadonlyArray<Redacted.Redacted>
): Effect.Effect<void, CliError.UserError> =>
  keys.length > 0 || isLoopback(host)
    ? Effect.void
    : Effect.fail(
        UserError.make(
          `--host ${host}: without keys it listens on the loopback interface only; give --key-file or set EMB_KEY`
        )
      )

const reconnecting = { maxReconnectDelay: "1 second" } as const

const pubsub = ({ redisUrl }: Options): Layer.Layer<Pubsub.Pubsub, Pubsub.PubsubError, PgClient.PgClient> =>
  Option.match(redisUrl, {
    onNone: () => PgPubsub.layer(reconnecting),
    onSome: (url) => Redis.layer(url, reconnecting)
  })

const retention = ({ retainAgents, retainStats }: Options) =>
  PgRetention.layer({
    stats: Option.getOrUndefined(retainStats),
    agentsUnseen: Option.getOrUndefined(retainAgents)
  })

const layer = (options: Options) =>
  Layer.mergeAll(PgStore.layer(), pubsub(options), retention(options)).pipe(
    // First, since the store looks at its tables.
    Layer.provideMerge(PgMigrations.layer({ unlogged: options.unlogged })),
    Layer.provideMerge(Database.layer),
    Layer.provideMerge(Telemetry.layer),
    Layer.provideMerge(Screen.layer)
  )

/**
 * @category commands
 * @since 0.1.0
 */
export const command = Command.make(
  "serve",
  flags,
  Effect.fnUntraced(function* (options) {
    const keys = yield* Secrets.keys(options.keyFile)
    yield* check(options, keys)
    yield* Redis.check(options.redisUrl)
    const tokens = yield* Tokens.make(keys)
    if (options.printConfig) return yield* printConfig(options, keys)
    yield* run(options, keys, tokens).pipe(Effect.scoped, Effect.provide(layer(options)))
  }, Effect.mapError(UserError.toUserError))
).pipe(
  Command.withDescription(
    "Serve the HTTP API and the live page, on the PostgreSQL that DATABASE_URL names or on one of its own.\n\nEach flag is also a variable: --flush-interval is EMB_FLUSH_INTERVAL. It ends with 0 if everything that was accepted is written, else with 1."
  ),
  Command.withShortDescription("Serve the HTTP API and the live page"),
  Command.withExamples([
    { command: "serve --fleet 20", description: "Something to look at, at http://127.0.0.1:3000/" },
    {
      command: "DATABASE_URL=postgres://… serve --key-file key --host 0.0.0.0",
      description: "For others to use; token signs what they need"
    }
  ])
)
