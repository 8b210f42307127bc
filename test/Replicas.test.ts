import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { faultsOf, race } from "../scripts/soak/race.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

layer(SharedPostgres.layer, { excludeTestServices: true, timeout: "30 seconds" })("Replicas", (it) => {
  it.effect("processes with skewed clocks racing for the same keys: no deadlock, and the newest wins", () =>
    Effect.gen(function* () {
      const verdict = yield* race({ processes: 3, seconds: 4 })
      assert.deepStrictEqual(faultsOf(verdict), [], JSON.stringify(verdict))
      assert.isAbove(verdict.offered, 10 * verdict.keys)
    })
  )
})
