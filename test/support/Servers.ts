/**
 * What all test files of a run have in common of PostgreSQL: the data directory
 * that their own servers begin with a copy of, and one server for those that
 * neither stop nor configure theirs.
 *
 * Each is made when the first file asks for it, by connecting to a socket, and is
 * told by a path or an address: a run that needs neither pays nothing. `Postgres`
 * and `SharedPostgres` ask.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { ProvidedContext } from "vitest"
import type { TestProject } from "vitest/node"

declare module "vitest" {
  interface ProvidedContext {
    readonly serverTemplate: string
    readonly sharedServer: string
  }
}

/** The database with our tables that others are copied from. */
export const migrated = "migrated"

/** The servers; what takes long to load is not, until somebody asks. */
const make = async () => {
  const [Effect, Exit, PgClient, Scope, EmbeddedPostgres, PgMigrations] = await Promise.all([
    import("effect/Effect"),
    import("effect/Exit"),
    import("@effect/sql-pg/PgClient"),
    import("effect/Scope"),
    import("../../src/app/EmbeddedPostgres.ts"),
    import("../../src/PgMigrations.ts")
  ])
  const scope = Scope.makeUnsafe()
  const template = Effect.gen(function* () {
    const { config, stop } = yield* EmbeddedPostgres.make()
    yield* stop()
    return join(`${config.host}`, "data")
  })
  const shared = (template: string) =>
    Effect.gen(function* () {
      const { config } = yield* EmbeddedPostgres.make({ template, settings: { fsync: "off" } })
      const create = Effect.flatMap(PgClient.PgClient, (sql) => sql`CREATE DATABASE ${sql(migrated)}`)
      // Nobody may be connected to what is copied: both clients end here.
      yield* Effect.provide(create, PgClient.layer(config))
      yield* Effect.provide(PgMigrations.run(), PgClient.layer({ ...config, database: migrated }))
      return JSON.stringify({ host: config.host, port: config.port })
    })
  return {
    template: () => Effect.runPromise(Scope.provide(template, scope)),
    shared: (template: string) => Effect.runPromise(Scope.provide(shared(template), scope)),
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

export default function setup({ provide }: TestProject) {
  const folder = mkdtempSync(join(tmpdir(), "servers-"))
  let made: ReturnType<typeof make> | undefined
  let template: Promise<string> | undefined
  let shared: Promise<string> | undefined
  const servers = () => (made ??= make())
  const askTemplate = () => (template ??= servers().then((servers) => servers.template()))
  const askShared = () =>
    (shared ??= Promise.all([servers(), askTemplate()]).then(([servers, template]) =>
      servers.shared(template)
    ))

  const answer = (name: keyof ProvidedContext, ask: () => Promise<string>) => {
    const path = join(folder, name)
    provide(name, path)
    return createServer((socket) => {
      socket.on("error", () => {})
      ask().then(
        (answer) => socket.end(answer),
        (error) => socket.end(`no server: ${error}`)
      )
    }).listen(path)
  }
  const sockets = [answer("serverTemplate", askTemplate), answer("sharedServer", askShared)]

  return async () => {
    for (const socket of sockets) socket.close()
    await Promise.allSettled([template, shared])
    await (await made)?.close()
    rmSync(folder, { recursive: true, force: true })
  }
}
