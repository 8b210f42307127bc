import type { RedisError } from "effect/persistence/Redis"
import { innermostMessage } from "../innermostMessage.ts"
import { type PubsubError, unavailable } from "../pubsub/error.ts"

/**
 * The code that an error of the server begins with, such as `NOPERM` or `ERR`;
 * `undefined` for an error of the client or the network.
 */
export const replyCode = (error: RedisError): string | undefined =>
  /^([A-Z][A-Z0-9_]*) /.exec(innermostMessage(error))?.[1]

/**
 * What a failed command means. The cause is a new error that holds no value: the
 * server quotes a command's arguments, so only its code is kept.
 */
export const toPubsubError = (error: RedisError): PubsubError => {
  const code = replyCode(error)
  return unavailable(new Error(code === undefined ? innermostMessage(error) : `Redis answered ${code}`))
}
