/**
 * An address behind which servers change, as behind a proxy or a DNS name at a
 * failover: connections that are open stay where they are, new ones go to the
 * server that was named last.
 */
import * as FileSystem from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"

const socketOf = (config: PgClient.PgPoolConfig): string =>
  Path.join(config.host ?? "", `.s.PGSQL.${config.port ?? 5432}`)

export const make = Effect.fnUntraced(function* (first: PgClient.PgPoolConfig) {
  let target: string | undefined = socketOf(first)
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => FileSystem.mkdtemp(Path.join(Os.tmpdir(), "switch-"))),
    (directory) => Effect.promise(() => FileSystem.rm(directory, { recursive: true, force: true }))
  )
  const sockets = new Set<Net.Socket>()
  const relay = (client: Net.Socket) => {
    if (target === undefined) {
      sockets.add(client)
      client.on("error", () => {})
      client.on("close", () => sockets.delete(client))
      return
    }
    const server = Net.connect(target)
    client.pipe(server)
    server.pipe(client)
    for (const [socket, other] of [
      [client, server],
      [server, client]
    ] as const) {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
  }
  yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer(relay).listen(socketOf({ ...first, host: directory }), () =>
        resume(Effect.succeed(server))
      )
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )
  return {
    /** How to connect to whatever server is behind the switch. */
    config: { ...first, host: directory },
    /** Accepts new connections and never answers. */
    silence: Effect.sync(() => {
      target = undefined
    }),
    /** Sends new connections to this server. */
    point: (config: PgClient.PgPoolConfig) =>
      Effect.sync(() => {
        target = socketOf(config)
      })
  }
})
