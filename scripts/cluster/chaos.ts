/** What happens to the cluster, by a seed. */
import type { Redis } from "./redis.ts"
import type { Replica } from "./replica.ts"

/** The same numbers between 0 and 1 for the same seed. */
export const seeded = (seed: number) => {
  let state = seed >>> 0
  // mulberry32
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

/** What may happen to a replica, and how it ends; each leaves it running. */
const mishaps: Readonly<Record<string, (replica: Replica, millis: number) => Promise<void>>> = {
  "killed and restarted": async (replica, millis) => {
    await replica.kill()
    await sleep(millis / 2)
    await replica.start()
  },
  "stopped and restarted": async (replica) => {
    await replica.stop()
    await replica.start()
  },
  frozen: async (replica, millis) => {
    replica.freeze()
    await sleep(millis)
    replica.thaw()
  },
  "without a database, and not told": async (replica, millis) => {
    replica.dropDatabase(true)
    await sleep(millis)
    replica.dropDatabase(false)
  },
  "cut off from its database": async (replica) => replica.cutDatabase(),
  "cut off from its clients": async (replica) => replica.cutClients()
}

export const names = Object.keys(mishaps)

/** Lets things happen for a while; returns what did, when all is as it should be again. */
export const rage = async (options: {
  readonly replicas: ReadonlyArray<Replica>
  readonly random: () => number
  readonly millis: number
  /** Crashes and restarts the database. */
  readonly crashDatabase: () => Promise<void>
  /** What may happen to Redis, where there is one. */
  readonly redis: Redis["mishaps"] | undefined
  readonly say: (what: string) => void
}): Promise<void> => {
  const { crashDatabase, millis, random, redis, replicas, say } = options
  const pick = <A>(list: ReadonlyArray<A>): A => list[Math.floor(random() * list.length)] as A
  const end = performance.now() + millis
  const busy = new Set<Replica>()
  const underWay: Array<Promise<void>> = []
  let redisIsBusy = false
  while (performance.now() < end) {
    if (redis !== undefined && !redisIsBusy && random() < 0.25) {
      const name = pick(Object.keys(redis))
      say(name)
      redisIsBusy = true
      const happening = redis[name]?.(500 + 2_500 * random()) ?? Promise.resolve()
      underWay.push(
        happening.finally(() => {
          redisIsBusy = false
        })
      )
    }
    const free = replicas.filter((replica) => !busy.has(replica))
    // Where nobody is left to stop well, a stop would wait for a database that is away.
    if (busy.size === 0 && random() < 0.1) {
      say("the database crashes and restarts")
      await crashDatabase()
    } else if (free.length > 0) {
      const replica = pick(free)
      const name = pick(names)
      say(`${replica.name} is ${name}`)
      busy.add(replica)
      const happening = mishaps[name]?.(replica, 500 + 2_500 * random())
      if (happening !== undefined) underWay.push(happening.finally(() => busy.delete(replica)))
    }
    await sleep(300 + 1_200 * random())
  }
  await Promise.all(underWay)
}
