import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { impatiently } from "../background.ts"
import { type PubsubError, unavailable } from "../pubsub/error.ts"
import type { Connection, Transport } from "../pubsub/transport.ts"
import { replyCode, toPubsubError } from "./pubsubError.ts"

/** As long as the client waits for a connection by itself. */
const connectTimeoutMillis = 5_000

/** How long closing waits for commands that are under way, which a server that hangs never answers. */
const closeTimeoutMillis = 1_000

/** What the client is to be made with, in the shape of node-redis's options. */
export interface ClientSettings {
  /** Milliseconds. Each connection is asked for an answer this often. */
  readonly pingInterval: number
  readonly socket: {
    /** Milliseconds. A connection on which nothing moved for this long is dead. */
    readonly socketTimeout: number
    /** Told of every lost connection; makes the client give up, so that no gap stays hidden. */
    readonly reconnectStrategy: (retries: number, cause: Error) => Error
  }
}

export interface Options {
  readonly client: (settings: ClientSettings) => Layer.Layer<Redis.Redis, Redis.RedisError>
  readonly heartbeatMillis: number
}

/** `PUBLISH` and `SUBSCRIBE`, on a client that lives as long as its first connection. */
export const make = (options: Options): Transport => ({
  connect: connect(options),
  whyUnheard:
    "the connections that listen and the one that publishes may have reached different servers, " +
    "as after a failover"
})

const connect = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Connection, PubsubError, Scope.Scope> {
  const lost = Deferred.makeUnsafe<never, PubsubError>()
  const clientScope = yield* scopeClosedInTime
  const redis = yield* makeClient(options, clientScope, lost)
  const connectedAs = yield* clientId(redis)
  return {
    publish: publish(redis),
    probe: probe(redis, connectedAs),
    lost: Deferred.await(lost),
    listen: (channel, deliver) => listen(redis, channel, deliver, lost)
  }
})

const makeClient = (
  options: Options,
  scope: Scope.Scope,
  lost: Deferred.Deferred<never, PubsubError>
): Effect.Effect<Redis.Redis["Service"], PubsubError> => {
  const settings: ClientSettings = {
    pingInterval: options.heartbeatMillis,
    socket: {
      socketTimeout: 2 * options.heartbeatMillis,
      reconnectStrategy: (_retries, cause) => {
        Deferred.doneUnsafe(lost, Exit.fail(toPubsubError(new Redis.RedisError({ cause }))))
        return cause
      }
    }
  }
  const build = Effect.suspend(() =>
    Layer.buildWithMemoMap(options.client(settings), Layer.makeMemoMapUnsafe(), scope)
  )
  return impatiently(build).pipe(
    // The client warns of what the listener reports once.
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.map((context) => Context.get(context, Redis.Redis)),
    Effect.mapError(toPubsubError),
    Effect.timeoutOrElse({
      duration: connectTimeoutMillis,
      orElse: () => Effect.fail(unavailable(new Error(`no connection within ${connectTimeoutMillis} ms`)))
    })
  )
}

/** A scope whose closing goes on in the background when it takes long. */
const scopeClosedInTime = Effect.acquireRelease(Scope.make(), (scope, exit) =>
  Effect.flatMap(Effect.forkDetach(Scope.close(scope, exit)), (closing) =>
    Effect.timeoutOption(Effect.interruptible(Fiber.await(closing)), closeTimeoutMillis)
  )
)

const publishAll = Redis.script(
  (channel: string, payloads: ReadonlyArray<string>) => [channel, ...payloads],
  {
    lua: "for i = 2, #ARGV do redis.call('PUBLISH', ARGV[1], ARGV[i]) end",
    numberOfKeys: 0
  }
)

const publish =
  (redis: Redis.Redis["Service"]): Connection["publish"] =>
  (channel, payloads) => {
    const [first, ...others] = payloads
    if (first === undefined) return Effect.void
    // A script, so that all are published in one step and none between them.
    const sent =
      others.length === 0 ? redis.send("PUBLISH", channel, first) : redis.eval(publishAll)(channel, payloads)
    return Effect.asVoid(Effect.mapError(sent, toPubsubError))
  }

/** The connection's number on the server, or nothing for a user who may not ask. */
const clientId = (redis: Redis.Redis["Service"]): Effect.Effect<number | undefined, PubsubError> =>
  redis.send<number>("CLIENT", "ID").pipe(
    Effect.catchIf(
      (error) => replyCode(error) !== undefined,
      () => Effect.undefined
    ),
    Effect.mapError(toPubsubError)
  )

/**
 * Fails when there is no answer, or when the client has connected again by itself
 * and told nobody: what was published meanwhile was not heard.
 */
const probe = (
  redis: Redis.Redis["Service"],
  connectedAs: number | undefined
): Effect.Effect<void, PubsubError> =>
  Effect.flatMap(clientId(redis), (id) =>
    id === connectedAs
      ? Effect.void
      : Effect.fail(unavailable(new Error("the client connected again by itself")))
  )

const listen = Effect.fnUntraced(function* (
  redis: Redis.Redis["Service"],
  channel: string,
  deliver: (payload: string) => void,
  lost: Deferred.Deferred<never, PubsubError>
): Effect.fn.Return<void, PubsubError, Scope.Scope> {
  const subscriptionScope = yield* scopeClosedInTime
  const messages = yield* impatiently(Scope.provide(redis.subscribe(channel), subscriptionScope))
  // A subscription that failed is a queue that has failed.
  const first = Queue.takeUnsafe(messages)
  if (first !== undefined && Exit.isFailure(first)) {
    return yield* Effect.mapError(Effect.failCause(first.cause), toPubsubError)
  }
  if (first !== undefined) deliver(first.value.message)
  yield* Queue.take(messages).pipe(
    Effect.flatMap(({ message }) => Effect.sync(() => deliver(message))),
    Effect.forever,
    Effect.catch((error) => Deferred.fail(lost, toPubsubError(error))),
    Effect.forkScoped
  )
})
