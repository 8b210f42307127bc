/**
 * A TCP proxy in front of a server, which can be made to fail in the ways that
 * networks do.
 */
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Socket } from "node:net"

export interface Proxy {
  /** Where it listens, at 127.0.0.1. */
  readonly port: number
  /** From now on connections lead here. */
  readonly point: (target: NetConnectOpts) => void
  /** Ends all connections at once; new ones are made as before. */
  readonly cut: () => void
  /**
   * `true`: nothing passes any more, in neither direction, and nobody is told.
   * `false`: the connections of before are ended, as after a network's absence.
   */
  readonly drop: (isDropping: boolean) => void
  readonly close: () => Promise<void>
}

/** @param targets where connections lead, by turns */
export const start = async (...targets: ReadonlyArray<NetConnectOpts>): Promise<Proxy> => {
  let current = targets
  let turn = 0
  let isDropping = false
  const sockets = new Set<Socket>()

  const track = (socket: Socket, other: () => Socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("close", () => {
      sockets.delete(socket)
      other().destroy()
    })
  }
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }

  const server = createServer((near) => {
    const target = current[turn++ % current.length]
    if (target === undefined) return void near.destroy()
    const far = connect(target)
    track(near, () => far)
    track(far, () => near)
    near.on("data", (bytes) => isDropping || far.write(bytes))
    far.on("data", (bytes) => isDropping || near.write(bytes))
    // A connection that ends in one direction ends: nobody here uses the other half.
    near.on("end", () => far.end())
    far.on("end", () => near.end())
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")

  return {
    port: (server.address() as AddressInfo).port,
    point: (target) => {
      current = [target]
    },
    cut,
    drop: (shouldDrop) => {
      isDropping = shouldDrop
      if (!shouldDrop) cut()
    },
    close: async () => {
      server.close()
      cut()
      await once(server, "close")
    }
  }
}
