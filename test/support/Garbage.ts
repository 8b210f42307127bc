import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Effect from "effect/Effect"

/** Collects what nothing holds any more, once this turn of the event loop, which holds what a `WeakRef` gave, is over. */
export const collectGarbage = Effect.promise(async () => {
  setFlagsFromString("--expose-gc")
  await new Promise((resolve) => setImmediate(resolve))
  runInNewContext("gc")()
})
