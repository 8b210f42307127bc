/**
 * Reads the text of Server-Sent Events as it arrives in pieces.
 *
 * @since 0.1.0
 */

/** One event of a stream. */
export interface ServerSentEvent {
  readonly name: string
  readonly data: string
}

/** What a stream has said so far that outlives its connection. */
export interface Memory {
  /** To be sent as `Last-Event-ID` when reconnecting. */
  lastEventId: string | undefined
  /** How long to wait before reconnecting, in milliseconds. */
  retry: number | undefined
}

/**
 * A parser: give it text as it comes, it gives the events that are complete.
 * It follows the HTML standard, but takes no lone carriage return for the end
 * of a line: no server sends one.
 */
export const makeParser = (memory: Memory): ((text: string) => ReadonlyArray<ServerSentEvent>) => {
  let rest = ""
  let name = ""
  let data: Array<string> = []
  let id: string | undefined

  const field = (line: string) => {
    const colon = line.indexOf(":")
    const key = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "")
    if (key === "event") name = value
    else if (key === "data") data.push(value)
    else if (key === "id" && !value.includes("\0")) id = value
    else if (key === "retry" && /^\d+$/.test(value)) memory.retry = Number(value)
  }

  const dispatch = (): ServerSentEvent | undefined => {
    // Only a complete event moves the place to resume from.
    if (id !== undefined) memory.lastEventId = id
    const event = data.length === 0 ? undefined : { name: name || "message", data: data.join("\n") }
    name = ""
    data = []
    return event
  }

  return (text) => {
    const lines = (rest + text).split("\n")
    rest = lines.pop() ?? ""
    const events: Array<ServerSentEvent> = []
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw
      if (line !== "") {
        field(line)
        continue
      }
      const event = dispatch()
      if (event !== undefined) events.push(event)
    }
    return events
  }
}
