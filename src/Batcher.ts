/**
 * A batching engine: records go in without ever waiting, batches come out, one
 * write at a time.
 *
 * `MetadataBatcher` and `StatsBatcher` are two instances of it. Use it directly
 * for records of your own: say how they wait between two writes (`newestWins`
 * or `appendOnly`) and how a batch of them is written.
 *
 * ```
 * add → queue → accumulator → one batch → write → announce
 *                    ↑                      ↓
 *                    └── what was not written
 * ```
 *
 * **Details**
 *
 * - Adding never waits and never fails. What there is no room for is dropped and
 *   counted; `maxPending` and `maxPendingBytes` bound what is kept.
 * - A batch is written once it is full, after `interval`, when `flush` is called
 *   and when the scope closes.
 * - While the store is away everything is kept. A write that failed is retried
 *   with a growing, jittered pause that stays below `interval`.
 * - A record that the store refuses is found by halving. It waits apart and is
 *   tried again; all the others are written.
 * - When the scope closes, everything is written, within `shutdownTimeout`.
 *
 * **Example** (An append-only audit log)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { Batcher } from "effect-metadata-batcher"
 * import * as Effect from "effect/Effect"
 *
 * interface Entry { readonly user: string; readonly action: string }
 * const table: Array<Entry> = []
 *
 * const program = Effect.gen(function* () {
 *   const log = yield* Batcher.make<Entry>({
 *     name: "AuditLog",
 *     accumulate: Batcher.appendOnly(),
 *     write: (entries) => Effect.sync(() => void table.push(...entries))
 *   })
 *   yield* log.add({ user: "ada", action: "sign in" })
 *   yield* log.add({ user: "ada", action: "delete" })
 *   const { written } = yield* log.flush
 *   assert.equal(written, 2)
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * assert.deepEqual(table.map(({ action }) => action), ["sign in", "delete"])
 * ```
 *
 * **Example** (The newest state of each device)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { Batcher } from "effect-metadata-batcher"
 * import * as Effect from "effect/Effect"
 *
 * interface State { readonly device: string; readonly name: string; readonly value: number; readonly at: number }
 * const table = new Map<string, number>()
 *
 * const program = Effect.gen(function* () {
 *   const states = yield* Batcher.make<State>({
 *     name: "DeviceStates",
 *     accumulate: Batcher.newestWins({ group: (s) => s.device, key: (s) => s.name, time: (s) => s.at }),
 *     write: (batch) => Effect.sync(() => batch.forEach((s) => table.set(`${s.device} ${s.name}`, s.value)))
 *   })
 *   yield* states.add({ device: "boiler", name: "celsius", value: 61, at: 2 })
 *   yield* states.add({ device: "boiler", name: "celsius", value: 60, at: 1 })
 *   const { written } = yield* states.flush
 *   assert.equal(written, 1)
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * assert.equal(table.get("boiler celsius"), 61)
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Definition } from "./internal/batcher/definition.ts"
import * as Engine from "./internal/batcher/engine.ts"
import { sampledSpan } from "./internal/batcher/flushSpan.ts"
import type { Accounting, Flushed, Status } from "./internal/batcher/models.ts"
import type { InvalidOptionError } from "./internal/options.ts"

export { appendOnly, newestWins } from "./internal/batcher/accumulate.ts"
export type { Accumulate } from "./internal/batcher/accumulator.ts"
export type { Announce, Definition } from "./internal/batcher/definition.ts"
export type { Accounting, Discarded, Flushed, Options, Reason, Status } from "./internal/batcher/models.ts"
export { allChanged, type Refusal, type WriteResult } from "./internal/batcher/writeResult.ts"
export { InvalidOptionError } from "./internal/options.ts"

/**
 * A running batcher.
 *
 * @category models
 * @since 0.1.0
 */
export interface Batcher<in A> {
  /** Adds a record. Never waits and never fails: what there is no room for is dropped, counted and warned about. */
  readonly add: (record: A) => Effect.Effect<void>
  /** `add` outside of Effect: synchronous, and says whether the record was taken. */
  readonly addUnsafe: (record: A) => boolean
  /** Gives up what waits of a group, and returns once no write under way holds any of it. */
  readonly forget: (group: string) => Effect.Effect<void>
  /**
   * Writes all that was accepted so far, whatever the interval, and says what
   * became of it. During an outage it waits for the next attempt. Whoever calls
   * while a flush is under way shares the next one.
   */
  readonly flush: Effect.Effect<Flushed>
  /** Where every record that was ever offered is now; also after the batcher has closed. */
  readonly accounting: Effect.Effect<Accounting>
  /** Whether the store takes writes, and since when it does not. */
  readonly status: Effect.Effect<Status>
}

/**
 * Makes a batcher that runs until the scope closes, and then writes what is
 * left.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A>(
  definition: Definition<A>
): Effect.Effect<Batcher<A>, InvalidOptionError, Scope.Scope> =>
  Effect.map(Engine.make(definition), (engine) => {
    const { group } = definition.accumulate
    const groupOf = (record: A): string => {
      try {
        return group(record)
      } catch {
        // Whatever this was, it has no group: the engine drops and counts it.
        return undefined as unknown as string
      }
    }
    return {
      add: (record) =>
        Effect.withFiberSucceed(
          (fiber) => void engine.offerUnsafe(groupOf(record), [record], sampledSpan(fiber))
        ),
      addUnsafe: (record) => engine.offerUnsafe(groupOf(record), [record], undefined) === 1,
      forget: engine.forget,
      flush: engine.flush,
      accounting: engine.accounting,
      status: engine.status
    }
  })
