/**
 * Who is asking, and what the API may answer before a request reaches its
 * handler.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as HttpApiSecurity from "effect/http-api/HttpApiSecurity"
import type { AgentId } from "../../AgentId.ts"
import * as Errors from "./Errors.ts"
import type { Role } from "./Models.ts"

/**
 * Whoever sent the request.
 *
 * @category services
 * @since 0.1.0
 */
export class Caller extends Context.Service<
  Caller,
  {
    readonly role: Role
    /** The agent that an agent's token names. */
    readonly agentId: AgentId | undefined
    /** Watchers are counted by it; without keys all are the same. */
    readonly tokenId: string
    /** When the token stops being valid, in milliseconds since the epoch. */
    readonly expiresAt: number | undefined
  }
>()("effect-metadata-batcher/app/Caller") {}

/**
 * The roles that may use an endpoint.
 *
 * @category annotations
 * @since 0.1.0
 */
export class AllowedRoles extends Context.Service<AllowedRoles, ReadonlyArray<Role>>()(
  "effect-metadata-batcher/app/AllowedRoles"
) {}

/**
 * Finds out who is calling by the bearer token, and lets only the roles through
 * that the endpoint allows.
 *
 * @category middleware
 * @since 0.1.0
 */
export class Authorization extends HttpApiMiddleware.Service<Authorization, { provides: Caller }>()(
  "effect-metadata-batcher/app/Authorization",
  {
    error: [Errors.Unauthorized, Errors.Forbidden],
    security: { bearer: HttpApiSecurity.bearer }
  }
) {}

/**
 * Says in one line what is wrong with a request that does not match its schema.
 * The other errors are those that any request may meet on its way in.
 *
 * @category middleware
 * @since 0.1.0
 */
export class Intake extends HttpApiMiddleware.Service<Intake>()("effect-metadata-batcher/app/Intake", {
  error: [
    Errors.BadRequest,
    Errors.Forbidden,
    Errors.RequestTimeout,
    Errors.BodyTooLarge,
    Errors.UnsupportedMediaType,
    Errors.Unavailable
  ]
}) {}
