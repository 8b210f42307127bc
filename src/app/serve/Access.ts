/**
 * Who may do what: the token's role decides, and for an agent the id in it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { AgentId } from "../../AgentId.ts"
import { Forbidden, Unauthorized } from "../api/Errors.ts"
import { AllowedRoles, Authorization, Caller } from "../api/Security.ts"
import { Tokens } from "./Tokens.ts"

const missing = new Unauthorized({ message: "a token is needed: Authorization: Bearer <token>" })

/**
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Authorization, never, Tokens> = Layer.effect(
  Authorization,
  Effect.gen(function* () {
    const tokens = yield* Tokens
    return Authorization.of({
      bearer: (handler, { credential, endpoint }) => {
        const token = Redacted.value(credential)
        if (token === "" && tokens.needed) return Effect.fail(missing)
        const roles = Context.getOrUndefined(endpoint.annotations, AllowedRoles) ?? []
        return tokens.verify(token).pipe(
          Effect.filterOrFail(
            ({ role }) => roles.includes(role),
            ({ role }) => new Forbidden({ message: `this is not for the role ${role}` })
          ),
          Effect.flatMap((caller) => Effect.provideService(handler, Caller, caller))
        )
      }
    })
  })
)

/**
 * Fails unless the caller may write these agents.
 *
 * @category access
 * @since 0.1.0
 */
export const mayWrite = (agentIds: Iterable<AgentId>): Effect.Effect<void, Forbidden, Caller> =>
  Effect.flatMap(Caller, (caller) => {
    if (caller.role !== "agent") return Effect.void
    for (const agentId of agentIds) {
      if (agentId !== caller.agentId) {
        return Effect.fail(new Forbidden({ message: "the token names another agent" }))
      }
    }
    return Effect.void
  })
