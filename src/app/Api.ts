/**
 * The HTTP API as one value: the server's routes, the OpenAPI document and the
 * typed client all come from it.
 *
 * @since 0.1.0
 */
import * as HttpApi from "effect/http-api/HttpApi"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import packageJson from "../../package.json" with { type: "json" }
import { AgentId } from "../AgentId.ts"
import * as Errors from "./api/Errors.ts"
import * as Events from "./api/Events.ts"
import * as Models from "./api/Models.ts"
import { AllowedRoles, Authorization, Intake } from "./api/Security.ts"

/**
 * Agents that one watcher may name.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxAgentsPerWatch = 200

/**
 * Agents that one page of the list may hold.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxAgentsPerPage = 1_000

// The schema decodes from any text; the document is to say which.
const agent = { id: AgentId.pipe(Schema.annotateEncoded({ format: "uuid" })) }

const digits = (minimum: number, maximum: number) =>
  Schema.FiniteFromString.check(
    Schema.isInt(),
    Schema.isBetween({ minimum, maximum }, { expected: `a whole number from ${minimum} to ${maximum}` })
  )

/** Keys with commas between them. */
const keys = Schema.optionalKey(Schema.String.check(Schema.isMaxLength(6_144)))

const pace = {
  keys,
  /** Milliseconds between two events of one agent, at least. */
  intervalMs: Schema.optionalKey(digits(250, 60_000))
}

const resume = { "last-event-id": Schema.optionalKey(Schema.String) }

const writers = ["agent", "operator"] as const
const readers = ["reader", "operator"] as const

const describe = (summary: string, description?: string) =>
  OpenApi.annotations({ summary, ...(description === undefined ? {} : { description }) })

const reported = {
  success: Models.Accepted,
  error: [Errors.Dropped, Errors.KeysTooLong]
} as const

const streamed = { error: [Errors.TooManyWatchers, Errors.Unavailable] } as const

const report = HttpApiGroup.make("report").add(
  HttpApiEndpoint.post("metadata", "/api/agents/:id/metadata", {
    params: agent,
    query: { time: Schema.optionalKey(Models.TimeOf) },
    payload: Models.Report,
    ...reported
  })
    .annotate(AllowedRoles, writers)
    .annotateMerge(
      describe(
        "Report facts of one agent",
        "Texts are trimmed; a value over 2,048 bytes is cut and `error` says so; an error over 2,048 bytes is replaced. Keys may have 6,144 bytes together: what comes after that is left out, with 413. With 429, send the newest facts again after `Retry-After` seconds."
      )
    ),
  HttpApiEndpoint.post("metadataOfMany", "/api/metadata", {
    query: { time: Schema.optionalKey(Models.TimeOf) },
    payload: Models.Reports,
    ...reported
  })
    .annotate(AllowedRoles, writers)
    .annotateMerge(describe("Report facts of several agents in one request")),
  HttpApiEndpoint.post("stats", "/api/agents/:id/stats", {
    params: agent,
    query: { time: Schema.optionalKey(Models.TimeOf) },
    payload: Models.StatsReports,
    success: Models.Accepted,
    error: Errors.Dropped
  })
    .annotate(AllowedRoles, writers)
    .annotateMerge(
      describe(
        "Report connection statistics of one agent",
        "A report whose id is known already changes nothing."
      )
    )
)

const agents = HttpApiGroup.make("agents").add(
  HttpApiEndpoint.get("list", "/api/agents", {
    query: {
      after: Schema.optionalKey(AgentId),
      limit: Schema.optionalKey(digits(1, maxAgentsPerPage))
    },
    success: Models.AgentPage,
    error: Errors.Unavailable
  })
    .annotate(AllowedRoles, readers)
    .annotateMerge(
      describe("List agents in the order of their ids", "Send `next` as `after` for the next page.")
    ),
  HttpApiEndpoint.get("metadata", "/api/agents/:id/metadata", {
    params: agent,
    query: { keys },
    success: Models.AgentFacts,
    error: [Errors.NotFound, Errors.Unavailable]
  })
    .annotate(AllowedRoles, readers)
    .annotateMerge(describe("Read an agent's facts")),
  HttpApiEndpoint.delete("delete", "/api/agents/:id", {
    params: agent,
    success: Models.Deleted,
    error: Errors.Unavailable
  })
    .annotate(AllowedRoles, ["operator"])
    .annotateMerge(describe("Forget an agent and delete its facts", "Every watcher sees that it is gone."))
)

const watch = HttpApiGroup.make("watch").add(
  HttpApiEndpoint.get("agent", "/api/agents/:id/watch", {
    params: agent,
    query: pace,
    headers: resume,
    success: HttpApiSchema.StreamSse({ events: Events.Watched }),
    ...streamed
  })
    .annotate(AllowedRoles, readers)
    .annotateMerge(
      describe("Watch one agent", "All its facts first and after each change, at most once a second.")
    ),
  HttpApiEndpoint.get("agents", "/api/watch", {
    query: { agents: Schema.String, ...pace },
    headers: resume,
    success: HttpApiSchema.StreamSse({ events: Events.Watched }),
    ...streamed
  })
    .annotate(AllowedRoles, readers)
    .annotateMerge(
      describe("Watch several agents", `Ids with commas between them, at most ${maxAgentsPerWatch}.`)
    ),
  HttpApiEndpoint.get("overview", "/api/overview", {
    query: { pulse: Schema.optionalKey(Schema.Literals(["true", "false"])) },
    headers: resume,
    success: HttpApiSchema.StreamSse({ events: Events.Overview }),
    ...streamed
  })
    .annotate(AllowedRoles, readers)
    .annotateMerge(
      describe("Watch the fleet, a line per agent", "With `?pulse=true` also the server's counters.")
    ),
  HttpApiEndpoint.get("pulse", "/api/pulse", {
    success: HttpApiSchema.StreamSse({ events: Events.Pulsed }),
    ...streamed
  })
    .annotate(AllowedRoles, readers)
    .annotateMerge(describe("Watch the server's counters", "Once a second."))
)

const server = HttpApiGroup.make("server").add(
  HttpApiEndpoint.get("session", "/api/session", {
    success: Models.Session,
    error: Errors.Unauthorized
  }).annotateMerge(describe("What a token allows, and whether one is needed"))
)

/**
 * @category api
 * @since 0.1.0
 */
export class Api extends HttpApi.make("effect-metadata-batcher")
  .add(report.middleware(Intake).middleware(Authorization))
  .add(agents.middleware(Intake).middleware(Authorization))
  .add(watch.middleware(Intake).middleware(Authorization))
  .add(server.middleware(Intake))
  .annotateMerge(
    OpenApi.annotations({
      title: "effect-metadata-batcher",
      version: packageJson.version,
      description:
        "Agents report small facts; people look at the newest of them, live. All times are milliseconds since the epoch. Every error is a JSON object with `_tag` and a `message` of one line."
    })
  ) {}
