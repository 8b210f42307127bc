/**
 * Bearer tokens: JSON Web Tokens signed with a key that the server knows, so
 * that no table of tokens is needed. The first key signs; every key verifies,
 * so that a new key can be put first while tokens of the old one still live.
 *
 * @since 0.1.0
 */
import { createHash, randomBytes, randomUUID } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { errors, type JWTPayload, jwtVerify, SignJWT } from "jose"
import { AgentId } from "../../AgentId.ts"
import { Unauthorized } from "../api/Errors.ts"
import { Role } from "../api/Models.ts"
import type { Caller } from "../api/Security.ts"

const issuer = "effect-metadata-batcher"
const algorithm = "HS256"

/** As many as the signature has; a shorter key is easier to guess than the signature. */
const minKeyBytes = 32

/**
 * What a token is to say.
 *
 * @category models
 * @since 0.1.0
 */
export interface Grant {
  readonly role: Role
  /** The one agent that an agent's token may write. */
  readonly agentId?: AgentId | undefined
  readonly expiresIn: Duration.Duration
}

/**
 * A key is too short, or there is none to sign with.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidKeyError extends Schema.Error<InvalidKeyError>(
  "effect-metadata-batcher/app/InvalidKeyError"
)({ _tag: Schema.tag("InvalidKeyError"), message: Schema.String }) {}

/**
 * @category services
 * @since 0.1.0
 */
export class Tokens extends Context.Service<
  Tokens,
  {
    /** Whether requests need a token, which is if there are keys. */
    readonly needed: boolean
    readonly sign: (grant: Grant) => Effect.Effect<string, InvalidKeyError>
    /** Who holds the token. The signature is compared in constant time. */
    readonly verify: (token: string) => Effect.Effect<Caller["Service"], Unauthorized>
  }
>()("effect-metadata-batcher/app/Tokens") {}

/**
 * The token of an `Authorization` header.
 *
 * @category conversions
 * @since 0.1.0
 */
export const bearerOf = (authorization: string | undefined): string | undefined =>
  /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1]

/** Names the key in a token's header and tells nothing about it. */
const keyIdOf = (key: Uint8Array): string =>
  createHash("sha256").update("key id").update(key).digest("base64url").slice(0, 8)

const decodeRole = Schema.decodeUnknownEffect(Role)
const decodeAgentId = Schema.decodeUnknownEffect(AgentId)

const invalid = new Unauthorized({ message: "the token is not valid" })

const whyRefused = (error: unknown): Unauthorized => {
  if (error instanceof Unauthorized) return error
  return error instanceof errors.JWTExpired ? new Unauthorized({ message: "the token has expired" }) : invalid
}

const callerOf = Effect.fnUntraced(function* ({
  exp,
  jti,
  role,
  sub
}: JWTPayload): Effect.fn.Return<Caller["Service"], Unauthorized | Schema.SchemaError> {
  if (jti === undefined || exp === undefined) return yield* invalid
  const decoded = yield* decodeRole(role)
  return {
    role: decoded,
    agentId: decoded === "agent" ? yield* decodeAgentId(sub) : undefined,
    tokenId: jti,
    expiresAt: exp * 1_000
  }
}, Effect.mapError(whyRefused))

/** Whoever reaches a server without keys is on its machine and may do everything. */
const anybody: Caller["Service"] = {
  role: "operator",
  agentId: undefined,
  tokenId: "anybody",
  expiresAt: undefined
}

/**
 * Without keys, everybody is an operator.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  texts: ReadonlyArray<Redacted.Redacted>
): Effect.fn.Return<Tokens["Service"], InvalidKeyError> {
  const keys = new Map<string, Uint8Array>()
  for (const text of texts) {
    const key = new TextEncoder().encode(Redacted.value(text))
    if (key.length < minKeyBytes) {
      return yield* new InvalidKeyError({ message: `a token key has at least ${minKeyBytes} bytes` })
    }
    keys.set(keyIdOf(key), key)
  }
  const [first] = keys

  return Tokens.of({
    needed: first !== undefined,
    sign: Effect.fnUntraced(function* ({ agentId, expiresIn, role }) {
      if (first === undefined) return yield* new InvalidKeyError({ message: "there is no key to sign with" })
      const now = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
      const token = new SignJWT({ role, ...(agentId === undefined ? {} : { sub: agentId }) })
        .setProtectedHeader({ alg: algorithm, kid: first[0] })
        .setIssuer(issuer)
        .setJti(randomUUID())
        .setIssuedAt(now)
        .setExpirationTime(now + Math.ceil(Duration.toSeconds(expiresIn)))
      return yield* Effect.promise(() => token.sign(first[1]))
    }),
    verify: (token) =>
      first === undefined
        ? Effect.succeed(anybody)
        : Effect.flatMap(Clock.currentTimeMillis, (now) =>
            Effect.flatMap(
              Effect.tryPromise({
                try: () =>
                  jwtVerify(
                    token,
                    ({ kid = "" }) => {
                      const key = keys.get(kid)
                      if (key === undefined) {
                        throw new Unauthorized({ message: "the token's key is none of this server's" })
                      }
                      return key
                    },
                    { algorithms: [algorithm], issuer, currentDate: new Date(now) }
                  ),
                catch: whyRefused
              }),
              ({ payload }) => callerOf(payload)
            )
          )
  })
})

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = (keys: ReadonlyArray<Redacted.Redacted>): Layer.Layer<Tokens, InvalidKeyError> =>
  Layer.effect(Tokens, make(keys))

/**
 * A new key, as text.
 *
 * @category constructors
 * @since 0.1.0
 */
export const randomKey: Effect.Effect<string> = Effect.sync(() => randomBytes(32).toString("base64url"))
