/**
 * `watch`: one agent's facts, or the whole fleet, in the terminal.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { AgentId } from "../AgentId.ts"
import type { AgentLine, Fact } from "./api/Models.ts"
import * as Client from "./Client.ts"
import { count } from "./DashboardLayout.ts"
import * as Flags from "./Flags.ts"
import * as Screen from "./Screen.ts"
import * as Secrets from "./Secrets.ts"
import * as UserError from "./UserError.ts"

/** Since when something is not as it should be, and what. */
interface Trouble {
  connection: { readonly since: number; readonly why: string } | undefined
  storeSince: number | null
  staleSince: number | null
}

const ageOf = (now: number, since: number): string => {
  const seconds = Math.max(0, Math.round((now - since) / 1_000))
  if (seconds < 120) return `${seconds} s`
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`
}

const troubleLines = (
  { connection, staleSince, storeSince }: Trouble,
  now: number
): ReadonlyArray<string> => [
  ...(connection === undefined
    ? []
    : [`disconnected for ${ageOf(now, connection.since)}: ${connection.why}`]),
  ...(storeSince === null ? [] : [`the database has been away for ${ageOf(now, storeSince)}`]),
  ...(staleSince === null ? [] : [`what is shown may be old by ${ageOf(now, staleSince)}`])
]

const factLine = ({ collectedAt, error, key, value }: typeof Fact.Type, now: number): string =>
  `${key.padEnd(24)} ${ageOf(now, collectedAt).padStart(7)}  ${error === "" ? value : `ERROR ${error}`}`

const agentLine = ({ errors, facts, id, lastCollectedAt }: AgentLine, now: number): string =>
  `${id} ${ageOf(now, lastCollectedAt).padStart(7)} ${count(facts).padStart(6)} facts${errors > 0 ? ` ${count(errors)} errors` : ""}`

/** Draws what `lines` says at once after each event, and every second since ages grow. */
const show = Effect.fnUntraced(function* <
  Event extends { readonly id?: string | undefined; readonly event: string; readonly data: unknown },
  E
>(
  events: Stream.Stream<Client.Arrived<Event> | Client.Lost, E>,
  see: (event: Event) => void,
  lines: (now: number) => ReadonlyArray<string>
): Effect.fn.Return<void, E, Screen.Screen> {
  const screen = yield* Screen.Screen
  const clock = yield* Clock.Clock
  const trouble: Trouble = { connection: undefined, storeSince: null, staleSince: null }
  const draw = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    return screen.draw([...troubleLines(trouble, now), ...lines(now)])
  })
  const follow = Stream.runForEach(events, (next) => {
    if (next._tag === "Lost") {
      trouble.connection ??= { since: clock.currentTimeMillisUnsafe(), why: next.why }
      return draw
    }
    trouble.connection = undefined
    if (next.event.event === "state") {
      Object.assign(trouble, next.event.data)
    } else see(next.event)
    return draw
  })
  // On a pipe, a line per second and agent would say the same over and over.
  yield* screen.isLive
    ? Effect.raceFirst(follow, Effect.forever(Effect.andThen(Effect.sleep("1 second"), draw)))
    : follow
})

const watchAgent = (client: Client.Client, id: AgentId) => {
  let facts: ReadonlyArray<typeof Fact.Type> = []
  return show(
    Client.follow((lastEventId) =>
      client.watch.agent({
        params: { id },
        query: {},
        headers: lastEventId === undefined ? {} : { "last-event-id": lastEventId }
      })
    ),
    (event) => {
      if (event.event === "facts") facts = event.data.facts
    },
    (now) => [`agent ${id}, ${count(facts.length)} facts`, ...facts.map((fact) => factLine(fact, now))]
  )
}

const watchFleet = (client: Client.Client) => {
  const agents = new Map<AgentId, AgentLine>()
  return show(
    Client.follow((lastEventId) =>
      client.watch.overview({
        query: {},
        headers: lastEventId === undefined ? {} : { "last-event-id": lastEventId }
      })
    ),
    (event) => {
      if (event.event !== "snapshot" && event.event !== "changes") return
      if (event.event === "snapshot" && event.data.first) agents.clear()
      for (const line of event.data.agents) agents.set(line.id, line)
      if (event.event === "changes") for (const id of event.data.removed) agents.delete(id)
    },
    (now) => [
      `${count(agents.size)} agents`,
      // Whoever reported last stands first, so that the top of a long list is alive.
      ...Array.from(agents.values())
        .sort((a, b) => b.lastCollectedAt - a.lastCollectedAt || (a.id < b.id ? -1 : 1))
        .map((line) => agentLine(line, now))
    ]
  )
}

/**
 * @category flags
 * @since 0.1.0
 */
export const url = Flags.text("url", "http://127.0.0.1:3000", "Address of the server")

/**
 * @category commands
 * @since 0.1.0
 */
export const command = Command.make(
  "watch",
  {
    agent: Argument.String("agent").pipe(
      Argument.withDescription("The agent's id; without it, the whole fleet"),
      Argument.withSchema(AgentId),
      Argument.optional
    ),
    url,
    tokenFile: Secrets.tokenFile
  },
  Effect.fnUntraced(
    function* ({ agent, tokenFile, url }) {
      const client = yield* Client.make({ url, token: yield* Secrets.token(tokenFile) })
      yield* Option.match(agent, { onNone: () => watchFleet(client), onSome: (id) => watchAgent(client, id) })
    },
    Effect.mapError(UserError.toUserError),
    Effect.provide([FetchHttpClient.layer, Screen.layer])
  )
).pipe(
  Command.withDescription(
    "Watch one agent, or the fleet, in the terminal. Comes back by itself after a loss; ends at Ctrl-C."
  ),
  Command.withShortDescription("Watch one agent, or the fleet, in the terminal"),
  Command.withExamples([
    { command: "watch", description: "The fleet of the server on this machine" },
    {
      command: "EMB_TOKEN=… watch 3f2504e0-4f89-41d3-9a0c-0305e82c3301 --url https://facts.example.org",
      description: "One agent's facts, with a reader's token"
    }
  ])
)
