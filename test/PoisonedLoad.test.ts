/** What rows that the server refuses cost the others at full speed, in transactions; `scripts/soak/poison.ts` measures the rest. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import { measure, refuseBad } from "../scripts/soak/poison.ts"
import * as Postgres from "./support/Postgres.ts"

layer(Postgres.layer, { excludeTestServices: true, timeout: "30 seconds" })(
  "One row in a hundred that the server refuses, under load",
  (it) => {
    it.effect(
      "takes no transaction id of the others once its key is known, and little more where it never is",
      () =>
        Effect.gen(function* () {
          yield* refuseBad
          const clean = yield* measure("clean", 500)
          // One for the rows, and one for the notification.
          assert.isAtMost(clean.idsPerBatch, 2.5)

          const fixed = yield* measure("fixed", 500)
          assert.isAbove(fixed.since.written, 0)
          // No key is refused that was not before. One of them may be under way just now, tried again alone.
          assert.strictEqual(fixed.since.refused + fixed.since.inFlight, 0)
          // Those of the refused rows that are tried again alone come on top, four at most a second.
          assert.isAtMost(fixed.idsPerBatch, clean.idsPerBatch + 1)

          for (const [figure, most] of [
            ["random", 1],
            ["statistics", 19]
          ] as const) {
            const { idsPerBatch, since } = yield* measure(figure, 500)
            assert.isAbove(since.written, 0, figure)
            assert.isAbove(since.refused, 0, figure)
            assert.isAtMost(idsPerBatch, clean.idsPerBatch + most, figure)
          }
        }).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
      60_000
    )
  }
)
