/**
 * A TCP proxy that a test points to one server, then to another, as a failover
 * does. It carries bytes and knows no protocol.
 */
import * as Net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Where connections go: a port, or a Unix socket. */
export type Target = { readonly host: string; readonly port: number } | { readonly path: string }

export interface TcpSwitch {
  /** Listens on 127.0.0.1. */
  readonly port: number
  /** Where new connections go; those that are open stay where they are. */
  readonly pointTo: (target: Target) => Effect.Effect<void>
  /** Takes new connections and never answers. */
  readonly silence: Effect.Effect<void>
  /** Cuts every open connection, as a proxy does that lost its server. */
  readonly cut: Effect.Effect<void>
  /** Connections open now. */
  readonly connections: Effect.Effect<number>
}

export const make = (options: { readonly target: Target }): Effect.Effect<TcpSwitch, never, Scope.Scope> =>
  Effect.gen(function* () {
    let target: Target | undefined = options.target
    const clients = new Set<Net.Socket>()
    const server = Net.createServer((client) => {
      clients.add(client)
      if (target === undefined) {
        const forget = () => clients.delete(client)
        client.on("error", forget).on("close", forget)
        return
      }
      const upstream = Net.connect(target)
      const close = () => {
        client.destroy()
        upstream.destroy()
        clients.delete(client)
      }
      for (const socket of [client, upstream]) socket.on("error", close).on("close", close)
      client.pipe(upstream).pipe(client)
    })
    const cut = Effect.sync(() => {
      for (const client of clients) client.destroy()
    })
    yield* Effect.acquireRelease(
      Effect.promise(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))),
      () =>
        Effect.andThen(
          cut,
          Effect.promise(() => new Promise((resolve) => server.close(resolve)))
        )
    )
    return {
      port: (server.address() as Net.AddressInfo).port,
      pointTo: (next) =>
        Effect.sync(() => {
          target = next
        }),
      silence: Effect.sync(() => {
        target = undefined
      }),
      cut,
      connections: Effect.sync(() => clients.size)
    }
  })
