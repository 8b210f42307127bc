/**
 * Whether the server takes work, as everybody in it can ask.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/**
 * - `ready`: takes work.
 * - `draining`: still takes work, and says that it is not ready so that no more is sent.
 * - `stopping`: takes none.
 *
 * @category models
 * @since 0.1.0
 */
export type Phase = "ready" | "draining" | "stopping"

/**
 * @category services
 * @since 0.1.0
 */
export class Lifecycle extends Context.Service<
  Lifecycle,
  { readonly phase: () => Phase; readonly enter: (phase: Phase) => Effect.Effect<void> }
>()("effect-metadata-batcher/app/Lifecycle") {}

/**
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Lifecycle> = Layer.sync(Lifecycle, () => {
  let phase: Phase = "ready"
  return Lifecycle.of({
    phase: () => phase,
    enter: (next) =>
      Effect.sync(() => {
        phase = next
      })
  })
})
