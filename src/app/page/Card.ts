/**
 * One agent in the grid.
 *
 * @since 0.1.0
 */
import { html, plural, setText } from "./Dom.ts"
import { type AgentState, stateNames } from "./Fleet.ts"
import type { Layout } from "./Layout.ts"
import * as Time from "./Time.ts"
import type { Fact, Line } from "./Wire.ts"

/** How many facts a card has room for. */
const room = 4

/** `3f0c9d1e…8a41b7c2`: ids that were given in order differ at their end, random ones anywhere. */
export const shortId = (id: string): string => `${id.slice(0, 8)}…${id.slice(-8)}`

/** Errors first: they are what one looks for. */
export const inOrder = (facts: ReadonlyArray<Fact>): ReadonlyArray<Fact> =>
  [...facts].sort(
    (a, b) => Number(b.error !== "") - Number(a.error !== "") || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
  )

/** `8 facts`, `9 facts · 1 error`. */
export const sumOf = ({ errors, facts }: Line): string =>
  plural(facts, "fact") + (errors === 0 ? "" : ` · ${plural(errors, "error")}`)

export class Card {
  readonly element = html("li", { class: "card" })
  readonly button: HTMLButtonElement
  line: Line
  private readonly state = html("span", { class: "state" })
  private readonly age = html("span", { class: "age" })
  private readonly facts = html("dl", { class: "facts" })
  private readonly sum = html("p", { class: "sum" })

  constructor(line: Line, open: (id: string) => void) {
    this.line = line
    const label = html("span", { "aria-hidden": "true" }, shortId(line.id))
    this.button = html("button", { type: "button", tabindex: "-1", title: line.id }, label)
    this.button.append(html("span", { class: "hidden" }, `Agent ${line.id}`))
    this.button.addEventListener("click", () => open(line.id))
    this.element.append(
      html("header", {}, this.state, html("h3", {}, this.button), this.age),
      this.facts,
      this.sum
    )
    for (let row = 0; row < Math.min(room, line.facts); row++) {
      this.facts.append(html("div", { class: "unknown" }, html("dt", {}, "\u00a0"), html("dd", {}, "\u00a0")))
    }
  }

  /** Shows the line as of `asOf`: what is not known since then is not held against the agent. */
  showLine(line: Line, state: AgentState): void {
    this.line = line
    this.element.dataset["state"] = state
    setText(this.state, stateNames[state])
    this.showAge()
    setText(this.sum, sumOf(line))
  }

  /** Puts it where it belongs. */
  put(place: number, layout: Layout): void {
    const { style } = this.element
    style.width = `${layout.cardWidth}px`
    style.transform = `translate(${layout.xOf(place)}px, ${layout.yOf(place)}px)`
    this.element.ariaPosInSet = String(place + 1)
    this.element.ariaSetSize = String(layout.count)
  }

  showAge(): void {
    setText(this.age, Time.age(this.line.lastCollectedAt))
  }

  showFacts(facts: ReadonlyArray<Fact>): void {
    const shown = inOrder(facts).slice(0, room)
    while (this.facts.children.length > shown.length) this.facts.lastElementChild?.remove()
    for (const [index, fact] of shown.entries()) {
      let row = this.facts.children[index]
      if (row === undefined) {
        row = html("div", {}, html("dt"), html("dd"))
        this.facts.append(row)
      }
      row.className = fact.error === "" ? "" : "error"
      const [key, value] = row.children
      if (key !== undefined) setText(key, fact.key)
      if (value !== undefined) setText(value, fact.error === "" ? fact.value : fact.error)
    }
  }
}
