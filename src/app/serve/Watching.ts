/**
 * The streams: an agent, several, the fleet, the server itself.
 *
 * @since 0.1.0
 */
import { Buffer } from "node:buffer"
import { createHash } from "node:crypto"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { AgentId } from "../../AgentId.ts"
import { MetadataWatcher, type View } from "../../MetadataWatcher.ts"
import { Api, maxAgentsPerWatch } from "../Api.ts"
import { BadRequest, Unavailable } from "../api/Errors.ts"
import { splitKeys, toFact } from "./Agents.ts"
import { Overview } from "./Overview.ts"
import * as Pace from "./Pace.ts"
import { Pulses } from "./Pulses.ts"
import type { Settings } from "./Settings.ts"
import { State } from "./State.ts"
import { respond, Watchers } from "./Watchers.ts"

/** How long a stream may take to know what it is to show first. */
const patience = "5 seconds"

const cannotStart = new Unavailable({ message: "the store cannot be read" })

interface Rendered {
  readonly bytes: Uint8Array
  /** Says what the facts are, so that a watcher who comes back need not be told them again. */
  readonly digest: bigint
}

// All who watch an agent share its view, and so its bytes.
const rendered = new WeakMap<View, Rendered>()

const render = (view: View): Rendered => {
  const known = rendered.get(view)
  if (known !== undefined) return known
  const facts = JSON.stringify(view.facts.map(toFact))
  const staleSince = view.staleSince?.epochMilliseconds ?? null
  const data = `{"agentId":"${view.agentId}","facts":${facts},"staleSince":${staleSince}}`
  const result = {
    bytes: Buffer.from(`event: facts\ndata: ${data}\n\n`),
    digest: createHash("sha256").update(view.agentId).update(facts).digest().readBigUInt64BE()
  }
  rendered.set(view, result)
  return result
}

/** What a stream of facts needs. Its scope is that of its request, and is no part of these. */
interface Services {
  readonly state: State["Service"]
  readonly watch: MetadataWatcher["Service"]["watch"]
  readonly watchers: Watchers["Service"]
}

interface Wanted {
  readonly agentIds: ReadonlyArray<AgentId>
  readonly keys: ReadonlyArray<string> | undefined
  readonly intervalMs: number
  readonly lastEventId: string | undefined
}

const watchFacts = Effect.fnUntraced(function* (
  { state, watch, watchers }: Services,
  { agentIds, intervalMs, keys, lastEventId }: Wanted
) {
  const watcher = yield* watchers.join(["state"])
  const { outbox } = watcher
  state.tell(watcher)
  const begun = yield* Deferred.make<void, Unavailable>()
  const waiting = new Set(agentIds)
  const sent = new Map<AgentId, bigint>()
  // Stands for what the client has been sent of all its agents, in any order.
  let digest = 0n

  const markSent = (agentId: AgentId, next: bigint) => {
    digest ^= (sent.get(agentId) ?? 0n) ^ next
    sent.set(agentId, next)
  }

  const first = new Map<AgentId, bigint>()
  const see = (view: View) => {
    const { bytes, digest: ofView } = render(view)
    outbox.put(view.agentId, () => {
      markSent(view.agentId, ofView)
      return [Buffer.from(`id: ${digest.toString(36)}\n`), bytes]
    })
    if (!waiting.delete(view.agentId)) return
    first.set(view.agentId, ofView)
    if (view.staleSince !== undefined && view.facts.length === 0) {
      Deferred.doneUnsafe(begun, Effect.fail(cannotStart))
    } else if (waiting.size === 0) Deferred.doneUnsafe(begun, Effect.void)
  }

  for (const agentId of agentIds) {
    const pace = yield* Pace.make({ intervalMs, phase: watcher.phase, watchers: watchers.count })
    // The view is the newest at the time it is taken: pausing between two leaves nothing old behind.
    yield* watch(agentId, { keys }).pipe(
      Stream.runForEach((view) => pace(Effect.sync(() => see(view)))),
      Effect.forkScoped
    )
  }
  yield* Effect.timeoutOrElse(Deferred.await(begun), {
    duration: patience,
    orElse: () => Effect.fail(cannotStart)
  })

  let held = 0n
  for (const ofView of first.values()) held ^= ofView
  if (lastEventId === held.toString(36)) {
    for (const [agentId, ofView] of first) {
      markSent(agentId, ofView)
      outbox.remove(agentId)
    }
  }
  return watcher
})

const decodeIds = Schema.decodeUnknownEffect(Schema.Array(AgentId))

const splitIds = (text: string): Effect.Effect<ReadonlyArray<AgentId>, BadRequest> => {
  const ids = Array.from(new Set(text.split(",").filter((id) => id !== "")))
  if (ids.length === 0 || ids.length > maxAgentsPerWatch) {
    const message = `query.agents: Expected 1 to ${maxAgentsPerWatch} ids with commas between them`
    return Effect.fail(new BadRequest({ message }))
  }
  return Effect.mapError(
    decodeIds(ids),
    () => new BadRequest({ message: "query.agents: Expected UUIDs with commas between them" })
  )
}

/**
 * @category layers
 * @since 0.1.0
 */
export const layer = ({ minIntervalMs }: Pick<Settings, "minIntervalMs">) =>
  HttpApiBuilder.group(Api, "watch", (handlers) =>
    Effect.gen(function* () {
      const overview = yield* Overview
      const pulses = yield* Pulses
      const state = yield* State
      const watchers = yield* Watchers
      const { watch } = yield* MetadataWatcher

      const wanted = (
        agentIds: ReadonlyArray<AgentId>,
        query: { readonly keys?: string; readonly intervalMs?: number },
        headers: { readonly "last-event-id"?: string }
      ) =>
        watchFacts(
          { state, watch, watchers },
          {
            agentIds,
            keys: splitKeys(query.keys),
            intervalMs: query.intervalMs ?? minIntervalMs,
            lastEventId: headers["last-event-id"]
          }
        )

      return handlers.handleAll({
        agent: ({ headers, params, query }) => Effect.flatMap(wanted([params.id], query, headers), respond),
        agents: ({ headers, query }) =>
          splitIds(query.agents).pipe(
            Effect.flatMap((agentIds) => wanted(agentIds, query, headers)),
            Effect.flatMap(respond)
          ),
        overview: ({ headers, query }) =>
          Effect.gen(function* () {
            const withPulse = query.pulse === "true"
            const watcher = yield* watchers.join(
              withPulse ? ["state", "overview", "pulse"] : ["state", "overview"]
            )
            state.tell(watcher)
            if (withPulse) pulses.tell(watcher)
            yield* overview.ready.pipe(
              Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.fail(cannotStart) }),
              Effect.mapError(() => cannotStart)
            )
            overview.tell(watcher, headers["last-event-id"])
            return yield* respond(watcher)
          }),
        pulse: () =>
          Effect.gen(function* () {
            const watcher = yield* watchers.join(["state", "pulse"])
            state.tell(watcher)
            pulses.tell(watcher)
            return yield* respond(watcher)
          })
      })
    })
  )
