/** A `Pubsub` whose publishes a test can hold, answer and let suffer. */
import * as Effect from "effect/Effect"
import type { AgentId } from "../../src/AgentId.ts"
import * as Pubsub from "../../src/Pubsub.ts"
import { agentsOf, type Row } from "./Facts.ts"
import * as Script from "./Script.ts"

export interface Publication {
  readonly channel: string
  readonly payloads: ReadonlyArray<string>
}

export interface FakePubsub {
  readonly pubsub: Pubsub.Pubsub["Service"]
  readonly publishes: Script.Script<Publication, void, Pubsub.PubsubError>
  /** The agents of every publish that was asked for, with its time. */
  readonly published: ReadonlyArray<{ readonly agents: ReadonlyArray<AgentId>; readonly at: number }>
  /** Rows that reached the table: their agents may be announced from now on. */
  readonly noteApplied: (rows: ReadonlyArray<Row>) => void
}

export const make = Effect.fnUntraced(function* (violations: Array<string>): Effect.fn.Return<FakePubsub> {
  const memory = yield* Pubsub.makeMemory
  const written = new Set<AgentId>()
  const published: Array<{ readonly agents: ReadonlyArray<AgentId>; readonly at: number }> = []
  const publishes = yield* Script.make<Publication, void, Pubsub.PubsubError>({
    work: ({ channel, payloads }) => memory.pubsub.publish(channel, payloads),
    fail: (reason, cause) =>
      new Pubsub.PubsubError({
        reason: reason === "Rejected" ? new Pubsub.Invalid({ cause }) : new Pubsub.Unavailable({ cause })
      }),
    onCall: ({ request, startedAt }) => {
      const agents = request.payloads.flatMap(agentsOf)
      if (new Set(agents).size < agents.length) violations.push("an agent twice in one publish")
      for (const agentId of agents) {
        if (!written.has(agentId)) violations.push(`published before its rows were written: ${agentId}`)
      }
      published.push({ agents, at: startedAt })
    }
  })
  return {
    pubsub: Pubsub.Pubsub.of({
      publish: (channel, payloads) => publishes.run({ channel, payloads }),
      subscribe: memory.pubsub.subscribe
    }),
    publishes,
    published,
    noteApplied: (rows) => {
      for (const { agentId } of rows) written.add(agentId)
    }
  }
})
