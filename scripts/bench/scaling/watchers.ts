/** Watchers in one process: what it takes of the process and how late they see a fact, under 20,000 facts/s. */
import * as Effect from "effect/Effect"
import * as EmbeddedPostgres from "../../../src/app/EmbeddedPostgres.ts"
import { sampleIn } from "../sample.ts"
import type { Live, LiveInput } from "../watch.ts"

export interface Watchers {
  readonly watchers: number
  readonly sample: Live
}

const counts = [0, 1_000, 5_000, 20_000]

export const measureWatchers = Effect.fnUntraced(function* (seconds: number) {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const measured: Array<Watchers> = []
  for (const watchers of counts) {
    const input: LiveInput = { kind: "live", way: "shared", watchers, seconds, config }
    const module = new URL("../watch.ts", import.meta.url).pathname
    measured.push({ watchers, sample: yield* Effect.promise(() => sampleIn<Live>(module, input)) })
  }
  return measured
})
