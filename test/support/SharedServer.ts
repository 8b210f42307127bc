/**
 * One PostgreSQL server for all test files that neither stop nor configure theirs.
 *
 * It starts when the first of them asks, so that a run that needs none pays
 * nothing. Who connects to the socket `sharedServer` is told its address once it
 * is up; `SharedPostgres` does, and makes a database of its own there.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type * as ManagedRuntime from "effect/ManagedRuntime"
import type { TestProject } from "vitest/node"

declare module "vitest" {
  interface ProvidedContext {
    readonly sharedServer: string
  }
}

/** The database with our tables that others are copied from. */
export const template = "migrated"

const start = async () => {
  const [Effect, Layer, ManagedRuntime, { EmbeddedPostgres }, PgMigrations, Postgres] = await Promise.all([
    import("effect/Effect"),
    import("effect/Layer"),
    import("effect/ManagedRuntime"),
    import("../../src/app/EmbeddedPostgres.ts"),
    import("../../src/PgMigrations.ts"),
    import("./Postgres.ts")
  ])
  const runtime = ManagedRuntime.make(Postgres.layerServer)
  const address = Effect.gen(function* () {
    const admin = yield* Postgres.makeClient()
    yield* admin`CREATE DATABASE ${admin(template)}`
    // Nobody may be connected to what is copied.
    yield* Effect.scoped(
      Layer.build(PgMigrations.layer().pipe(Layer.provide(Postgres.layerClient({ database: template }))))
    )
    const { host, port } = (yield* EmbeddedPostgres).config
    return JSON.stringify({ host, port })
  })
  return { runtime, address: await runtime.runPromise(Effect.scoped(address)) }
}

export default function setup({ provide }: TestProject) {
  const folder = mkdtempSync(join(tmpdir(), "shared-postgres-"))
  let started: ReturnType<typeof start> | undefined
  const server = createServer((socket) => {
    socket.on("error", () => {})
    started ??= start()
    started.then(
      ({ address }) => socket.end(address),
      (error) => socket.end(`the shared server did not start: ${error}`)
    )
  })
  const path = join(folder, "socket")
  server.listen(path)
  provide("sharedServer", path)

  return async () => {
    server.close()
    const running: ManagedRuntime.ManagedRuntime<never, unknown> | undefined = (await started)?.runtime
    await running?.dispose()
    rmSync(folder, { recursive: true, force: true })
  }
}
