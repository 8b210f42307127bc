/** Redis behind a proxy, and what may happen to it. */
import * as Programs from "./programs.ts"
import * as Proxy from "./proxy.ts"

export interface Redis {
  readonly url: string
  /** Each leaves it as it was. */
  readonly mishaps: Readonly<Record<string, (millis: number) => Promise<void>>>
  readonly close: () => Promise<void>
}

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

export const start = async (program: string): Promise<Redis> => {
  let server = await Programs.startRedis(program)
  const { port } = server
  const proxy = await Proxy.start({ host: "127.0.0.1", port })
  return {
    url: `redis://127.0.0.1:${proxy.port}`,
    mishaps: {
      "Redis crashes and restarts": async (millis) => {
        await server.stop()
        await sleep(millis / 2)
        server = await Programs.startRedis(program, port)
      },
      "Redis is frozen": async (millis) => {
        server.process.kill("SIGSTOP")
        await sleep(millis)
        server.process.kill("SIGCONT")
      },
      "all are cut off from Redis": async () => proxy.cut(),
      "Redis is gone, and nobody is told": async (millis) => {
        proxy.drop(true)
        await sleep(millis)
        proxy.drop(false)
      }
    },
    close: async () => {
      await proxy.close()
      await server.stop()
    }
  }
}
