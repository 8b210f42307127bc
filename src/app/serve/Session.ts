/**
 * What a page asks first: whether a token is needed, and what the one it has allows.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import packageJson from "../../../package.json" with { type: "json" }
import { Api } from "../Api.ts"
import type { Settings } from "./Settings.ts"
import { bearerOf, Tokens } from "./Tokens.ts"

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = ({
  flushIntervalMs,
  minIntervalMs
}: Pick<Settings, "flushIntervalMs" | "minIntervalMs">) =>
  HttpApiBuilder.group(Api, "server", (handlers) =>
    Effect.gen(function* () {
      const tokens = yield* Tokens
      const startedAt = yield* Clock.currentTimeMillis
      return handlers.handleAll({
        session: ({ request }) =>
          Effect.gen(function* () {
            const authorization = request.headers["authorization"]
            const caller =
              tokens.needed && authorization === undefined
                ? undefined
                : yield* tokens.verify(bearerOf(authorization) ?? "")
            return {
              tokens: tokens.needed,
              role: caller?.role ?? null,
              agentId: caller?.agentId ?? null,
              version: packageJson.version,
              minIntervalMs,
              flushIntervalMs,
              startedAt
            }
          })
      })
    })
  )
