/**
 * What agents report.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import type { AgentId } from "../../AgentId.ts"
import { MetadataBatcher } from "../../MetadataBatcher.ts"
import { StatsBatcher } from "../../StatsBatcher.ts"
import { Api } from "../Api.ts"
import { Dropped, KeysTooLong } from "../api/Errors.ts"
import type { ReportedFact } from "../api/Models.ts"
import { mayWrite } from "./Access.ts"
import * as Engine from "./Engine.ts"
import * as Facts from "./Facts.ts"

interface Report {
  readonly agentId: AgentId
  readonly facts: ReadonlyArray<ReportedFact>
}

interface Tally {
  accepted: number
  dropped: number
  leftOut: number
}

const answer = ({
  accepted,
  dropped,
  leftOut
}: Tally): Effect.Effect<{ readonly accepted: number; readonly dropped: number }, Dropped | KeysTooLong> => {
  if (dropped > 0) {
    return Effect.fail(new Dropped({ message: "there was no room for all of it", accepted, dropped }))
  }
  if (leftOut > 0) {
    const message = `an agent's keys exceeded ${Facts.maxKeysBytes} bytes together; ${leftOut} facts were left out`
    return Effect.fail(new KeysTooLong({ message, accepted }))
  }
  return Effect.succeed({ accepted, dropped })
}

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(Api, "report", (handlers) =>
  Effect.gen(function* () {
    const metadata = yield* MetadataBatcher
    const stats = yield* StatsBatcher

    const take = (reports: ReadonlyArray<Report>, timeOf: "server" | "agent" = "server") =>
      Effect.flatMap(DateTime.now, (now) => {
        const tally: Tally = { accepted: 0, dropped: 0, leftOut: 0 }
        for (const report of reports) {
          const { facts, leftOut } = Facts.fromReport(report.facts, now, timeOf)
          const taken = metadata.addUnsafe(report.agentId, facts)
          tally.accepted += taken
          tally.dropped += facts.length - taken
          tally.leftOut += leftOut
        }
        return answer(tally)
      })

    return handlers.handleAll({
      metadata: ({ params, payload, query }) =>
        Effect.andThen(
          mayWrite([params.id]),
          take([{ agentId: params.id, facts: payload.facts }], query.time)
        ),
      metadataOfMany: ({ payload, query }) =>
        Effect.andThen(
          mayWrite(payload.agents.map(({ agentId }) => agentId)),
          take(payload.agents, query.time)
        ),
      stats: ({ params, payload, query }) =>
        Effect.gen(function* () {
          yield* mayWrite([params.id])
          const now = yield* DateTime.now
          let accepted = 0
          for (const report of payload.reports) {
            accepted += Engine.addStats(stats, params.id, report, now, query.time ?? "server")
          }
          const dropped = payload.reports.length - accepted
          if (dropped === 0) return { accepted, dropped }
          return yield* new Dropped({ message: "there was no room for all of it", accepted, dropped })
        })
    })
  })
)
