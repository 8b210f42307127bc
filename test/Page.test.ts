/** The live page in a real browser: what it shows, what it says when something is wrong, who can use it. */

import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { assert, describe, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Page } from "playwright-core"
import type { Fact } from "../src/app/page/Wire.ts"
import * as Browser from "./support/Browser.ts"
import * as PageFleet from "./support/PageFleet.ts"
import { PageServer } from "./support/PageServer.ts"

if (Browser.unserved !== undefined) console.log(`The page is not tested: ${Browser.unserved}`)

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

const agent = "0198a1b2-0000-7000-8000-00000000000a"

const fact = (key: string, value: string, error = ""): Fact => ({
  key,
  value,
  error,
  collectedAt: Date.now()
})

const serve = Effect.fnUntraced(function* (prepare: (server: PageServer) => void) {
  const server = new PageServer()
  prepare(server)
  yield* Effect.acquireRelease(
    Effect.promise(() => server.start()),
    () => Effect.promise(() => server.stop())
  )
  return server
})

const oneAgent = (server: PageServer) => server.report(agent, [fact("cpu", "12 %")])

/** Waits until the page shows this text. */
const shows = (page: Page, text: string | RegExp, timeout = 15_000) =>
  page.getByText(text).first().waitFor({ timeout })

const lacks = (page: Page, text: string | RegExp, timeout = 15_000) =>
  page.getByText(text).first().waitFor({ state: "hidden", timeout })

const card = (page: Page, id: string) => page.getByRole("button", { name: `Agent ${id}` })

interface Fault {
  readonly id: string
  readonly impact: string | null
  readonly nodes: ReadonlyArray<{ readonly html: string; readonly failureSummary: string }>
}

/** What axe-core finds that is serious or worse. */
const faults = async (page: Page): Promise<ReadonlyArray<string>> => {
  await page.evaluate(axe)
  const found: ReadonlyArray<Fault> = await page.evaluate("axe.run().then(({ violations }) => violations)")
  return found
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map(({ failureSummary, html }) => `${id}: ${html}\n${failureSummary}`))
}

describe.skipIf(Browser.unserved !== undefined)("the page", () => {
  layer(Browser.layer, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    it.effect("shows a fact as soon as it is told, in the grid and among all facts of its agent", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { complaints, page, strays } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, "12 %")
          server.report(agent, [fact("cpu", "34 %"), fact("gpu", "", "no such device")])
          await shows(page, "34 %")
          await card(page, agent).click()
          const sheet = page.getByRole("dialog", { name: agent })
          await sheet.getByRole("row", { name: /gpu Error: no such device/ }).waitFor()
          server.report(agent, [fact("cpu", "56 %")])
          await sheet.getByRole("row", { name: /cpu 56 %/ }).waitFor()
        })
        assert.deepStrictEqual(complaints, [])
        assert.deepStrictEqual(strays, [])
      })
    )

    it.effect("forgets an agent that is deleted", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, "12 %")
          server.remove(agent)
          await shows(page, "No agent has reported yet")
          assert.strictEqual(await card(page, agent).count(), 0)
        })
      })
    )

    it.effect("takes a value for text, whatever is in it", () =>
      Effect.gen(function* () {
        const value = `<img src="x" onerror="document.title='taken'"><script>1</script>`
        const server = yield* serve((server) => server.report(agent, [fact("<b>key</b>", value)]))
        const { complaints, page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, value)
          await card(page, agent).click()
          await page.getByRole("dialog").getByText(value).waitFor()
          assert.strictEqual(await page.title(), "Fleet")
        })
        assert.deepStrictEqual(complaints, [])
      })
    )

    it.effect("says within 5 s that the server is gone, and catches up by itself", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, "12 %")
          await shows(page, "Live")
          await server.stop()
          await shows(page, /^Disconnected since .* What you see is as of/)
          server.report(agent, [fact("cpu", "78 %")])
          await server.start()
          await shows(page, "78 %", 12_000)
          await lacks(page, /^Disconnected since/)
          await shows(page, "Live")
        })
      })
    )

    it.effect("says within 5 s that the server has fallen silent", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, "Live")
          server.freeze()
          await shows(page, /^Disconnected since/)
        })
      })
    )

    it.effect("says what the server says when it cannot show anything, and catches up", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => {
          oneAgent(server)
          server.refusal = "the store cannot be read"
        })
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          // No pause of the page ever ends by itself: whoever asks to try again is all there is.
          await page.addInitScript(
            "{ const soon = setTimeout; setTimeout = (run, millis) => (millis < 200 ? soon(run, millis) : 1) }"
          )
          await page.reload()
          await shows(page, /^No news since .*: the server says “the store cannot be read”/)
          server.refusal = undefined
          await page.locator("#trouble-retry").click()
          await shows(page, "12 %")
          await lacks(page, /^No news since/)
        })
      })
    )

    it.effect("says also over an open sheet that the server is gone", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open(server.url, { viewport: Browser.phone })
        yield* Effect.promise(async () => {
          await card(page, agent).click()
          await server.stop()
          await page
            .getByRole("dialog")
            .getByText(/^Disconnected since/)
            .waitFor({ timeout: 5_000 })
        })
      })
    )

    it.effect("says that the database is away, since when, and that it is back", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, "Live")
          server.setStore(Date.now())
          await shows(page, /^The database has been away since .*: connection refused\. Facts wait/)
          await shows(page, "Database away")
          server.setStore(null)
          await lacks(page, /^The database has been away/)
        })
      })
    )

    it.effect("does not hold against the agents what it could not hear", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => {
          server.report(agent, [{ ...fact("cpu", "12 %"), collectedAt: Date.now() - 29_000 }])
          server.setStore(Date.now())
        })
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          await shows(page, /^3\d s ago$/)
          assert.strictEqual(await page.locator(".card").getAttribute("data-state"), "fresh")
          server.setStore(null)
          await page.locator(".card[data-state=late]").waitFor()
        })
      })
    )

    it.effect("tells ages by the server's clock, whatever the viewer's says", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open("about:blank")
        yield* Effect.promise(async () => {
          await page.addInitScript("{ const now = Date.now; Date.now = () => now() + 600_000 }")
          await page.goto(server.url)
          await shows(page, /^\d s ago$/)
          await shows(page, "Fresh")
        })
      })
    )

    it.effect("draws and watches of 2,000 agents those in sight only", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => PageFleet.fill(server, 2_000))
        const { complaints, page } = yield* Browser.open(server.url)
        const last = [...server.facts.keys()].sort().at(-1) ?? ""
        const watched = () => server.asked.at(-1)?.split("=")[1]?.split(",") ?? []
        yield* Effect.promise(async () => {
          await shows(page, "2,000")
          await page.locator(".card .facts > div:not(.unknown)").first().waitFor()
          assert.isBelow(await page.locator(".card").count(), 80)
          assert.isBelow(watched().length, 50)
          const place = () => page.locator(".card").last().getAttribute("aria-posinset")
          assert.isBelow(Number(await place()), 80)
          await page.evaluate("scrollTo(0, document.body.scrollHeight)")
          await card(page, last).waitFor()
          assert.strictEqual(await place(), "2000")
          await page.locator(".card:last-child .facts > div:not(.unknown)").first().waitFor()
          assert.isBelow(await page.locator(".card").count(), 80)
          assert.include(watched(), last)
          assert.isBelow(watched().length, 50)
        })
        assert.deepStrictEqual(complaints, [])
      })
    )

    it.effect("finds, filters and sorts, and keeps that in its address", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => PageFleet.fill(server, 200))
        const { page } = yield* Browser.open(server.url)
        const ids = [...server.facts.keys()].sort()
        const wanted = ids[150] ?? ""
        const first = () => page.locator(".card").first().getByRole("button").innerText()
        yield* Effect.promise(async () => {
          await card(page, ids[0] ?? "").waitFor()
          await page.keyboard.press("/")
          await page.keyboard.type(wanted.replaceAll("-", "").toUpperCase())
          await card(page, wanted).waitFor()
          assert.strictEqual(await page.locator(".card").count(), 1)
          await shows(page, "1 agent found")
          await page.reload()
          await card(page, wanted).waitFor()
          assert.strictEqual(await page.locator(".card").count(), 1)

          await page.getByRole("searchbox").fill("")
          await page.getByRole("radio", { name: /With errors/ }).check()
          await page.locator(".card:not([data-state=errors])").first().waitFor({ state: "hidden" })
          assert.isAbove(await page.locator(".card[data-state=errors]").count(), 1)

          await page.getByRole("radio", { name: /All/ }).check()
          await page.getByRole("combobox").selectOption("attention")
          await page.locator(".card:first-child[data-state=errors]").waitFor()
          assert.match(await first(), /^[0-9a-f]{8}…/)
          assert.match(page.url(), /#sort=attention$/)
        })
      })
    )

    it.effect("can be used by keyboard alone", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => PageFleet.fill(server, 200))
        const { page } = yield* Browser.open(server.url)
        const ids = [...server.facts.keys()].sort()
        const focused = () =>
          page.evaluate("document.activeElement.closest('li, dialog')?.getAttribute('aria-posinset')")
        yield* Effect.promise(async () => {
          await card(page, ids[0] ?? "").waitFor()
          await page.getByRole("combobox").focus()
          await page.keyboard.press("Tab")
          assert.strictEqual(await focused(), "1")
          await page.keyboard.press("ArrowRight")
          assert.strictEqual(await focused(), "2")
          await page.keyboard.press("ArrowDown")
          assert.strictEqual(await focused(), "7")
          await page.keyboard.press("End")
          assert.strictEqual(await focused(), "200")
          // Scrolled away, the focus is still where it was.
          await page.evaluate("scrollTo(0, 0)")
          await card(page, ids[0] ?? "").waitFor()
          assert.strictEqual(await focused(), "200")
          await page.keyboard.press("ArrowUp")
          assert.strictEqual(await focused(), "195")
          await page.keyboard.press("Enter")
          await page.getByRole("dialog", { name: ids[194] ?? "" }).waitFor()
          await page.keyboard.press("Escape")
          await page.getByRole("dialog").waitFor({ state: "hidden" })
          assert.strictEqual(await focused(), "195")
          // One stop: the next one is after the grid.
          await page.keyboard.press("Shift+Tab")
          assert.strictEqual(await page.evaluate("document.activeElement.id"), "sort")
        })
      })
    )

    it.effect("opens an agent by its address, and goes back", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => PageFleet.fill(server, 200))
        const far = [...server.facts.keys()].sort().at(-1) ?? ""
        const { page } = yield* Browser.open(`${server.url}#agent=${far}`)
        yield* Effect.promise(async () => {
          const sheet = page.getByRole("dialog", { name: far })
          await sheet.getByRole("row", { name: /cpu/ }).waitFor()
          await sheet.getByRole("button", { name: "Close" }).click()
          await sheet.waitFor({ state: "hidden" })
          assert.strictEqual(page.url(), server.url)

          const entries = () => page.evaluate("history.length")
          const near = [...server.facts.keys()].sort().at(-2) ?? ""
          await card(page, near).click()
          const another = page.getByRole("dialog", { name: near })
          await another.waitFor()
          const before = await entries()
          await page.goBack()
          await another.waitFor({ state: "hidden" })
          for (let turn = 0; turn < 3; turn++) {
            await card(page, near).click()
            await another.waitFor()
            await page.keyboard.press("Escape")
            await page.waitForURL(server.url)
          }
          assert.strictEqual(await entries(), before)
        })
      })
    )

    it.effect("asks for a token, keeps it for the tab, and asks again when it no longer holds", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => {
          oneAgent(server)
          server.token = "right"
        })
        const { page } = yield* Browser.open(server.url)
        yield* Effect.promise(async () => {
          const dialog = page.getByRole("dialog", { name: "This server asks for a token" })
          await dialog.waitFor()
          assert.strictEqual(server.asked.length, 0)
          await page.keyboard.press("Escape")
          await dialog.waitFor()
          await page.keyboard.type("wrong")
          await page.keyboard.press("Enter")
          await dialog.getByText("The token is not valid.").waitFor()
          await page.keyboard.type("right")
          await page.keyboard.press("Enter")
          await shows(page, "12 %")
          assert.strictEqual(
            await page.evaluate("JSON.stringify([localStorage.length, document.cookie])"),
            `[0,""]`
          )
          assert.notInclude(server.asked.join(), "right")

          await page.reload()
          await shows(page, "12 %")
          server.token = "another"
          await server.stop()
          await server.start()
          await dialog.getByText("The token is not valid.").waitFor({ timeout: 12_000 })
        })
      })
    )

    it.effect("holds no stream while its tab is hidden", () =>
      Effect.gen(function* () {
        const server = yield* serve(oneAgent)
        const { page } = yield* Browser.open(server.url)
        const hide = (hidden: boolean) =>
          page.evaluate(
            `Object.defineProperty(document, "hidden", { configurable: true, get: () => ${hidden} });
             document.dispatchEvent(new Event("visibilitychange"))`
          )
        yield* Effect.promise(async () => {
          await shows(page, "12 %")
          await hide(true)
          await server.whenViewers(0)
          server.report(agent, [fact("cpu", "90 %")])
          await hide(false)
          await shows(page, "90 %")
        })
      })
    )

    it.effect("tells a screen reader what is wrong, and nothing as long as nothing is", () =>
      Effect.gen(function* () {
        const server = yield* serve((server) => PageFleet.fill(server, 200))
        const { page } = yield* Browser.open(server.url)
        const said = () => page.evaluate<ReadonlyArray<string>>("said")
        yield* Effect.promise(async () => {
          await page.getByRole("status").getByText("Everything is up to date").waitFor({ state: "attached" })
          await page.evaluate(`
            window.said = []
            for (const region of document.querySelectorAll("[role=status], [role=alert], [aria-live]:not([aria-live=off])")) {
              new MutationObserver(() => said.push(region.textContent)).observe(region, {
                childList: true, characterData: true, subtree: true
              })
            }`)
          const told = server.told
          await server.whenTold(told + 4)
          assert.deepStrictEqual(await said(), [])
          server.setStore(Date.now())
          await shows(page, "Database away")
          assert.deepStrictEqual(await said(), ["Connected. The database is away"])
        })
      })
    )

    for (const [name, viewport] of Object.entries({ laptop: Browser.laptop, phone: Browser.phone })) {
      for (const colorScheme of ["light", "dark"] as const) {
        it.effect(
          `has no serious fault of accessibility, and fits, on a ${name} in ${colorScheme}`,
          () =>
            Effect.gen(function* () {
              const server = yield* serve((server) => PageFleet.fill(server, 60))
              const { page } = yield* Browser.open(`${server.url}#sort=attention`, {
                viewport,
                colorScheme,
                reducedMotion: "reduce"
              })
              const wide = () => page.evaluate("document.documentElement.scrollWidth > innerWidth")
              yield* Effect.promise(async () => {
                await page.locator(".card .facts > div:not(.unknown)").first().waitFor()
                assert.deepStrictEqual(await faults(page), [])
                assert.isFalse(await wide())
                await page.locator(".card[data-state=errors] button").first().click()
                await page.getByRole("row", { name: /gpu/ }).waitFor()
                assert.deepStrictEqual(await faults(page), [])
                await page.keyboard.press("Escape")
                server.setStore(Date.now())
                await shows(page, "Database away")
                assert.deepStrictEqual(await faults(page), [])
                assert.isFalse(await wide())
                await server.stop()
                await shows(page, /^Disconnected since/)
                assert.deepStrictEqual(await faults(page), [])
                assert.isFalse(await wide())
                server.token = "right"
                await server.start()
                await page.getByRole("dialog", { name: /token/ }).waitFor({ timeout: 12_000 })
                assert.deepStrictEqual(await faults(page), [])
              })
            }),
          60_000
        )
      }
    }
  })
})
