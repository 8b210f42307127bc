/**
 * The code that is raced: the working tree's, or with `--against` that of
 * another revision, checked out into a temporary folder.
 *
 * A revision has no packages of its own. Its `node_modules` is a link to the
 * working tree's, so that both run on the same `effect`, in the same process.
 */
import { execFileSync } from "node:child_process"
import { mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import type * as MetadataBatcher from "../../src/MetadataBatcher.ts"
import type * as PgMigrations from "../../src/PgMigrations.ts"
import type * as PgPubsub from "../../src/PgPubsub.ts"
import type * as PgStore from "../../src/PgStore.ts"
import type * as Pubsub from "../../src/Pubsub.ts"
import type * as Store from "../../src/Store.ts"

/** The modules of a revision that the bench uses, as far as they are like the working tree's. */
export interface Library {
  readonly MetadataBatcher: typeof MetadataBatcher
  readonly Store: typeof Store
  readonly Pubsub: typeof Pubsub
}

export interface PostgresLibrary {
  readonly PgMigrations: typeof PgMigrations
  readonly PgPubsub: typeof PgPubsub
  readonly PgStore: typeof PgStore
}

const repository = resolve(import.meta.dirname, "../..")

/** The folder with the sources of the working tree. */
const workingTree = join(repository, "src")

const importFrom = (sources: string, name: string) => import(pathToFileURL(join(sources, `${name}.ts`)).href)

export const load = async (sources: string = workingTree): Promise<Library> => ({
  MetadataBatcher: await importFrom(sources, "MetadataBatcher"),
  Store: await importFrom(sources, "Store"),
  Pubsub: await importFrom(sources, "Pubsub")
})

export const loadPostgres = async (sources: string = workingTree): Promise<PostgresLibrary> => ({
  PgMigrations: await importFrom(sources, "PgMigrations"),
  PgPubsub: await importFrom(sources, "PgPubsub"),
  PgStore: await importFrom(sources, "PgStore")
})

const git = (...args: ReadonlyArray<string>): string =>
  execFileSync("git", args, { cwd: repository, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()

/** The commit that a revision names; null if there is none. */
export const resolveRevision = (revision: string): string | null => {
  try {
    return git("rev-parse", "--verify", "--end-of-options", `${revision}^{commit}`)
  } catch {
    return null
  }
}

/** The sources of a commit, in a temporary folder until disposed of. */
export const checkOut = (commit: string): Disposable & { readonly sources: string } => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "effect-metadata-batcher-against-")))
  const dispose = () => rmSync(folder, { recursive: true, force: true })
  try {
    const archive = join(folder, "revision.tar")
    git("archive", "--output", archive, commit, "package.json", "src")
    execFileSync("tar", ["-xf", archive, "-C", folder])
    symlinkSync(join(repository, "node_modules"), join(folder, "node_modules"), "junction")
  } catch (error) {
    dispose()
    throw error
  }
  return { sources: join(folder, "src"), [Symbol.dispose]: dispose }
}
