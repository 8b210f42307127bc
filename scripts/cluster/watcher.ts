/** A person's browser, so to speak: watches agents on one replica, and comes back after whatever happens. */
import type { Replica } from "./replica.ts"

interface Fact {
  readonly key: string
  readonly value: string
}

/** What is shown of an agent: value by key. */
export type Shown = ReadonlyMap<string, string>

export interface Watcher {
  readonly replica: string
  /** What it watches. */
  readonly agentIds: ReadonlySet<string>
  readonly shown: () => ReadonlyMap<string, Shown>
  readonly connects: () => number
  readonly close: () => Promise<void>
}

/** No byte for so long: the connection is dead. The server says something every 15 seconds. */
const silenceMillis = 20_000

/** Reads the events of a stream: `event`, `id` and `data`. */
async function* eventsOf(body: AsyncIterable<Uint8Array>, onBytes: () => void) {
  const decoder = new TextDecoder()
  let text = ""
  for await (const bytes of body) {
    onBytes()
    text += decoder.decode(bytes, { stream: true })
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const fields = new Map(
        text
          .slice(0, end)
          .split("\n")
          .map((line): [string, string] => {
            const colon = line.indexOf(":")
            return [line.slice(0, colon), line.slice(colon + 1).trimStart()]
          })
      )
      text = text.slice(end + 2)
      yield { event: fields.get("event"), id: fields.get("id"), data: fields.get("data") ?? "{}" }
    }
  }
}

export const start = (replica: Replica, agentIds: ReadonlyArray<string>): Watcher => {
  const shown = new Map<string, Shown>()
  let lastId: string | undefined
  let connects = 0
  let isClosed = false
  let abort = new AbortController()

  const follow = async () => {
    abort = new AbortController()
    let timer = setTimeout(() => abort.abort(), silenceMillis)
    const alive = () => {
      clearTimeout(timer)
      timer = setTimeout(() => abort.abort(), silenceMillis)
    }
    try {
      const url = `${replica.url}/api/watch?agents=${agentIds.join(",")}&intervalMs=250`
      const response = await fetch(url, {
        headers: lastId === undefined ? {} : { "last-event-id": lastId },
        signal: abort.signal
      })
      if (response.status !== 200 || response.body === null) return
      connects += 1
      for await (const { data, event, id } of eventsOf(response.body, alive)) {
        if (id !== undefined) lastId = id
        if (event !== "facts") continue
        const { agentId, facts } = JSON.parse(data) as { agentId: string; facts: ReadonlyArray<Fact> }
        shown.set(agentId, new Map(facts.map(({ key, value }) => [key, value])))
      }
    } catch {
      // The next attempt tells.
    } finally {
      clearTimeout(timer)
    }
  }

  const following = (async () => {
    while (!isClosed) {
      await follow()
      if (!isClosed) await new Promise((resolve) => setTimeout(resolve, 200))
    }
  })()

  return {
    replica: replica.name,
    agentIds: new Set(agentIds),
    shown: () => shown,
    connects: () => connects,
    close: async () => {
      isClosed = true
      abort.abort()
      await following
    }
  }
}
