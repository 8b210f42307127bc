/** Replicas of `serve` that tell each other through Redis, also of one that comes late. */
import { assert, layer, it as test } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { startServer } from "../scripts/soak/stop.ts"
import { metadataBatchChannel } from "../src/MetadataBatcher.ts"
import { agentIdOf } from "./support/Fakes.ts"
import * as Postgres from "./support/Postgres.ts"
import * as RedisServer from "./support/RedisServer.ts"
import { events, nextOf } from "./support/Server.ts"
import * as SharedPostgres from "./support/SharedPostgres.ts"

const startReplica = Effect.gen(function* () {
  const sql = yield* Postgres.makeClient()
  const { path } = yield* RedisServer.RedisServer
  return yield* Effect.acquireRelease(
    Effect.promise(() =>
      startServer(Postgres.urlOf(sql.config), [
        ...["--flush-interval", "100ms", "--redis-url", `unix://${path}`]
      ])
    ),
    ({ child, ended }) =>
      Effect.promise(() => {
        child.kill("SIGTERM")
        return ended
      })
  )
})

const report = (url: string, agent: number, value: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/api/agents/${agentIdOf(agent)}/metadata`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ facts: [{ key: "cpu", value }] })
    })
    assert.strictEqual(response.status, 202)
  })

/** Gives an effect that waits until the stream shows this value. */
const watch = (url: string, agent: number) =>
  Effect.map(
    Effect.promise((signal) => fetch(`${url}/api/agents/${agentIdOf(agent)}/watch`, { signal })),
    (response) => {
      const next = nextOf(events(response), "facts")
      return (value: string) => Effect.repeat(next, { until: ({ data }) => data.facts[0]?.value === value })
    }
  )

const statusOf = (url: string) => Effect.promise(async () => (await fetch(url)).status)

const replicasHear = Effect.flatMap(RedisServer.RedisServer, ({ command }) =>
  Effect.repeat(command(`PUBSUB NUMSUB ${metadataBatchChannel}`), {
    until: (answer) => answer.includes(":2\r\n"),
    schedule: Schedule.spaced("20 millis")
  })
)

if (RedisServer.whyMissing !== undefined) {
  test.skip(`serve with Redis: ${RedisServer.whyMissing}`, () => {})
  console.warn(`serve with Redis: ${RedisServer.whyMissing}`)
} else {
  layer(Layer.merge(SharedPostgres.layer, RedisServer.layer), {
    excludeTestServices: true,
    timeout: "30 seconds"
  })("serve with Redis", (it) => {
    it.effect(
      "a fact that is posted to one replica is seen on the other",
      () =>
        Effect.gen(function* () {
          const [one, two] = yield* Effect.all([startReplica, startReplica], { concurrency: 2 })
          const shows = yield* watch(two.url, 1)
          yield* watch(one.url, 1)
          yield* replicasHear
          for (const value of ["1", "2"]) {
            yield* report(one.url, 1, value)
            yield* shows(value)
          }
        }),
      90_000
    )

    it.effect(
      "one that is away at the start is no reason not to start, and is found when it comes",
      () =>
        Effect.gen(function* () {
          const redis = yield* RedisServer.RedisServer
          yield* redis.stop
          const [one, two] = yield* Effect.all([startReplica, startReplica], { concurrency: 2 })
          for (const path of ["/", "/healthz", "/readyz"]) {
            assert.strictEqual(yield* statusOf(one.url + path), 200)
          }
          yield* report(one.url, 2, "without")
          // Nobody tells the other replica, which still reads what its watchers see when they come.
          const heldByOne = yield* watch(one.url, 2)
          yield* heldByOne("without")
          const shows = yield* watch(two.url, 2)
          yield* shows("without")
          yield* redis.start
          yield* replicasHear
          yield* report(one.url, 2, "with")
          yield* shows("with")
        }),
      90_000
    )
  })
}
