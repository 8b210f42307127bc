import * as Effect from "effect/Effect"
import { invalid, type PubsubError } from "./error.ts"

const maxChannelBytes = 63
const maxPayloadBytes = 7_999

const encoder = new TextEncoder()

/** The length of a text in UTF-8. */
export const byteLength = (text: string): number => encoder.encode(text).length

// A UTF-16 unit takes one to three bytes of UTF-8, so that most texts fit
// without being encoded.
const fits = (text: string, maxBytes: number): boolean =>
  !text.includes("\0") &&
  text.isWellFormed() &&
  text.length <= maxBytes &&
  (text.length * 3 <= maxBytes || byteLength(text) <= maxBytes)

/** Why `NOTIFY` would refuse this, or `undefined` if it would not. */
export const whyInvalid = (channel: string, payloads: ReadonlyArray<string> = []): string | undefined => {
  if (channel.length === 0) return "the channel has no name"
  if (!fits(channel, maxChannelBytes))
    return `a channel's name has at most ${maxChannelBytes} bytes, no NUL and no lone surrogate`
  if (!payloads.every((payload) => fits(payload, maxPayloadBytes))) {
    return `a payload has at most ${maxPayloadBytes} bytes, no NUL and no lone surrogate`
  }
  return undefined
}

/** Fails as `Invalid` where PostgreSQL's `NOTIFY` would refuse the channel or a payload. */
export const check = (
  channel: string,
  payloads: ReadonlyArray<string> = []
): Effect.Effect<void, PubsubError> =>
  Effect.suspend(() => {
    const why = whyInvalid(channel, payloads)
    return why === undefined ? Effect.void : Effect.fail(invalid(new Error(why)))
  })
