/**
 * What the table holds: agents, and the facts of each.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import type { AgentSummary, Metadata } from "../../Metadata.ts"
import { Store, type StoreError } from "../../Store.ts"
import { Api } from "../Api.ts"
import { NotFound, Unavailable } from "../api/Errors.ts"
import type { AgentLine, Fact } from "../api/Models.ts"
import * as Engine from "./Engine.ts"

/**
 * @category conversions
 * @since 0.1.0
 */
export const toLine = ({ agentId, errors, facts, lastCollectedAt }: AgentSummary): AgentLine => ({
  id: agentId,
  facts,
  errors,
  lastCollectedAt: lastCollectedAt.epochMilliseconds
})

/**
 * @category conversions
 * @since 0.1.0
 */
export const toFact = ({ collectedAt, error, key, value }: Metadata): typeof Fact.Type => ({
  key,
  value,
  error,
  collectedAt: collectedAt.epochMilliseconds
})

/**
 * The keys of `?keys=`, if there are any.
 *
 * @category conversions
 * @since 0.1.0
 */
export const splitKeys = (keys: string | undefined): ReadonlyArray<string> | undefined => {
  const names = (keys ?? "").split(",").filter((key) => key !== "")
  return names.length === 0 ? undefined : names
}

const whyAway = (error: StoreError): Effect.Effect<never, Unavailable> =>
  Effect.fail(new Unavailable({ message: error.message }))

const pageSize = 100

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(Api, "agents", (handlers) =>
  Effect.gen(function* () {
    const store = yield* Store
    return handlers.handleAll({
      list: ({ query: { after, limit = pageSize } }) =>
        store.agents({ after, limit }).pipe(
          Effect.map((page) => ({
            agents: page.map(toLine),
            next: page.length < limit ? null : (page.at(-1)?.agentId ?? null)
          })),
          Effect.catch(whyAway)
        ),
      metadata: ({ params, query }) =>
        store.metadataOf([params.id], { keys: splitKeys(query.keys) }).pipe(
          Effect.catch(whyAway),
          Effect.flatMap(([agent]) =>
            agent === undefined
              ? Effect.fail(new NotFound({ message: "the agent has no facts" }))
              : Effect.succeed({ agentId: agent.agentId, facts: agent.facts.map(toFact) })
          )
        ),
      delete: ({ params }) =>
        Engine.deleteAgent(params.id).pipe(
          Effect.map((deleted) => ({ deleted })),
          Effect.catch(whyAway)
        )
    })
  })
)
