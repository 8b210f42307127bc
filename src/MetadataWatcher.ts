/**
 * Shows what the store holds of agents, live: the reading half of the path that
 * `MetadataBatcher` writes.
 *
 * One subscription tells a process which agents changed, and one statement
 * reads those that somebody watches, whatever the number of watchers. A state
 * that is replaced before a consumer has taken it is never seen by it.
 *
 * **Example** (Watching an agent in an app)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { AgentId, MetadataBatcher, MetadataWatcher, Pubsub, Store } from "effect-metadata-batcher"
 * import * as DateTime from "effect/DateTime"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 *
 * const agentId = AgentId.AgentId.make("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
 *
 * const program = Effect.gen(function* () {
 *   const watcher = yield* MetadataWatcher.MetadataWatcher
 *   const batcher = yield* MetadataBatcher.MetadataBatcher
 *   const collectedAt = yield* DateTime.now
 *   yield* batcher.add(agentId, [{ key: "cpu", value: "12%", error: "", collectedAt }])
 *   yield* Effect.forkChild(batcher.flush)
 *   return yield* watcher.watch(agentId).pipe(
 *     Stream.map(({ facts }) => facts.map(({ key, value }) => `${key} ${value}`)),
 *     Stream.takeUntil((shown) => shown.length > 0),
 *     Stream.runLast
 *   )
 * })
 *
 * const App = Layer.merge(MetadataBatcher.layer(), MetadataWatcher.layer()).pipe(
 *   Layer.provide([Store.layerMemory, Pubsub.layerMemory])
 * )
 *
 * const shown = await Effect.runPromise(Effect.provide(program, App))
 * assert.deepEqual(shown, { ...shown, value: ["cpu 12%"] })
 * ```
 *
 * **Details**
 *
 * - A round reads what was announced since the one before, and begins no sooner
 *   than `minInterval` after it began. Agents that nobody watches are not read.
 * - Announcements may be lost with a connection. Once it is back, and after a
 *   read that failed, everything watched is read again; and every watched agent
 *   is read once per `refreshInterval`, announced or not.
 * - What is shown is what the store held when it was read. Rounds never overlap,
 *   so a state is never replaced by an earlier one, unless the store itself goes
 *   back: an agent was deleted, the table emptied, or a row dated ahead of time
 *   gave way to a newer report. With replicas of the database that lag behind
 *   each other, read from one of them only.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { AgentId } from "./AgentId.ts"
import type { InvalidOptionError } from "./Batcher.ts"
import { withoutCaller } from "./internal/background.ts"
import type { Change, Changed, Options, Resync, View, WatcherStatus } from "./internal/watcher/definition.ts"
import * as Engine from "./internal/watcher/engine.ts"
import { resolve } from "./internal/watcher/options.ts"
import { Pubsub } from "./Pubsub.ts"
import { Store } from "./Store.ts"

export type { Change, Changed, Options, Resync, View, WatcherStatus }

/**
 * The watcher of agent metadata.
 *
 * @category services
 * @since 0.1.0
 */
export class MetadataWatcher extends Context.Service<
  MetadataWatcher,
  {
    /**
     * The facts of an agent, or those under the given keys: as they are, and
     * again whenever they have changed. An agent without facts shows an empty
     * list.
     *
     * The stream does not fail: while the store cannot be read, `staleSince`
     * says since when what is shown may be out of date. It ends only with the
     * watcher itself. A slow consumer finds the newest state and misses those in
     * between.
     *
     * **Example** (Sending an agent's facts to a browser as Server-Sent Events)
     *
     * ```ts
     * import { AgentId, MetadataWatcher } from "effect-metadata-batcher"
     * import * as Effect from "effect/Effect"
     * import * as HttpRouter from "effect/http/HttpRouter"
     * import * as HttpServerResponse from "effect/http/HttpServerResponse"
     * import * as Schema from "effect/Schema"
     * import * as Stream from "effect/Stream"
     *
     * export const Route = HttpRouter.add("GET", "/agents/:id", Effect.gen(function* () {
     *   const watcher = yield* MetadataWatcher.MetadataWatcher
     *   const { id } = yield* HttpRouter.schemaPathParams(Schema.Struct({ id: AgentId.AgentId }))
     *   const events = watcher.watch(id).pipe(
     *     Stream.map((view) => `data: ${JSON.stringify(view)}\n\n`),
     *     Stream.encodeText
     *   )
     *   return HttpServerResponse.stream(events, { contentType: "text/event-stream" })
     * }))
     * ```
     */
    readonly watch: (
      agentId: AgentId,
      options?: { readonly keys?: ReadonlyArray<string> | undefined } | undefined
    ) => Stream.Stream<View>
    /**
     * Which agents changed, watched or not, as it is announced: for caches and
     * overviews. Begins with a `Resync`, upon which its consumer reads what it
     * shows, and has one wherever it may have missed something. Announcements
     * that wait for a slow consumer are merged, each agent once; more than 10,000
     * of them become a `Resync`. An announcement that is lost without a trace
     * is not made good here.
     */
    readonly changes: Stream.Stream<Change>
    readonly status: Effect.Effect<WatcherStatus>
  }
>()("effect-metadata-batcher/MetadataWatcher") {}

/**
 * Makes a watcher that runs until the scope closes, which ends its streams. It
 * is made whether or not the store and the pubsub can be reached.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options?: Options | undefined
): Effect.Effect<MetadataWatcher["Service"], InvalidOptionError, Store | Pubsub | Scope.Scope> =>
  Effect.updateContext(
    Effect.annotateLogs(build(options ?? {}), "watcher", "MetadataWatcher"),
    (context: Context.Context<Store | Pubsub | Scope.Scope>) => withoutCaller(context)
  )

const build = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<MetadataWatcher["Service"], InvalidOptionError, Store | Pubsub | Scope.Scope> {
  const resolved = yield* resolve(options)
  const { changes, status, watch } = yield* Engine.make(resolved, yield* Store, yield* Pubsub)
  return MetadataWatcher.of({
    watch: (agentId, options) => watch(agentId, options?.keys),
    changes,
    status
  })
})

/**
 * Provides a watcher over the `Store` and `Pubsub` in the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options | undefined
): Layer.Layer<MetadataWatcher, InvalidOptionError, Store | Pubsub> =>
  Layer.effect(MetadataWatcher, make(options))

/**
 * `layer` with its options read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options>
): Layer.Layer<MetadataWatcher, InvalidOptionError | Config.ConfigError, Store | Pubsub> =>
  Layer.effect(MetadataWatcher, Effect.flatMap(Config.unwrap(config), make))
