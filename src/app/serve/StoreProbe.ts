/**
 * Whether the store answers, and how long its writes take.
 *
 * Somebody may look at a fleet of which nothing is written at the moment; so the
 * store is asked for one line every second, besides what the batcher knows from
 * its writes.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Store } from "../../Store.ts"

/**
 * The store does not answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Away {
  readonly since: number
  readonly error: string
}

/**
 * A write of metadata that succeeded.
 *
 * @category models
 * @since 0.1.0
 */
export interface Write {
  readonly at: number
  readonly millis: number
}

/**
 * @category services
 * @since 0.1.0
 */
export class StoreProbe extends Context.Service<
  StoreProbe,
  {
    readonly away: () => Away | undefined
    /** The writes of the last seconds, oldest first. */
    readonly writes: () => ReadonlyArray<Write>
    /** Rows of metadata written so far. */
    readonly rows: () => number
  }
>()("effect-metadata-batcher/app/StoreProbe") {}

const pause = "1 second"
const patience = "2 seconds"

/** Milliseconds for which a write is remembered. */
const memory = 10_000

const observe = Effect.fnUntraced(function* (
  store: Store["Service"]
): Effect.fn.Return<readonly [Store["Service"], StoreProbe["Service"]], never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  let away: Away | undefined
  let writes: Array<Write> = []
  let rows = 0

  const ask = store.agents({ limit: 1 }).pipe(
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => Effect.fail({ message: `the store did not answer within ${patience}` })
    }),
    Effect.match({
      onSuccess: () => {
        away = undefined
      },
      onFailure: ({ message }) => {
        away = { since: away?.since ?? now(), error: message }
      }
    })
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(ask, Effect.sleep(pause))))

  const forgetOld = () => {
    const since = now() - memory
    if ((writes[0]?.at ?? since) < since) writes = writes.filter(({ at }) => at >= since)
  }

  const observed = Store.of({
    ...store,
    batchUpdateMetadata: (batch) =>
      Effect.suspend(() => {
        const begun = now()
        return Effect.tap(store.batchUpdateMetadata(batch), () =>
          Effect.sync(() => {
            rows += batch.keys.length
            writes.push({ at: now(), millis: now() - begun })
            forgetOld()
          })
        )
      })
  })
  return [
    observed,
    {
      away: () => away,
      writes: () => {
        forgetOld()
        return writes
      },
      rows: () => rows
    }
  ] as const
})

/**
 * The store in context, watched.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Store | StoreProbe, never, Store> = Layer.effectContext(
  Effect.gen(function* () {
    const [store, probe] = yield* observe(yield* Store)
    return Context.make(Store, store).pipe(Context.add(StoreProbe, probe))
  })
)
