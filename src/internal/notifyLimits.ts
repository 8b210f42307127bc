const maxChannelBytes = 63
const maxPayloadBytes = 7_999

const encoder = new TextEncoder()

// A UTF-16 unit takes one to three bytes of UTF-8; most texts need no encoding
// to be told apart.
const fits = (text: string, maxBytes: number): boolean =>
  !text.includes("\0") &&
  text.isWellFormed() &&
  text.length <= maxBytes &&
  (text.length * 3 <= maxBytes || encoder.encode(text).length <= maxBytes)

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
