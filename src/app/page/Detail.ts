/**
 * All the facts of one agent, in a sheet over the page.
 *
 * @since 0.1.0
 */
import { inOrder, sumOf } from "./Card.ts"
import { byId, html, setText } from "./Dom.ts"
import { stateNames, stateOf } from "./Fleet.ts"
import * as Time from "./Time.ts"
import type { Fact, Line } from "./Wire.ts"

interface Row {
  readonly element: HTMLTableRowElement
  readonly value: HTMLTableCellElement
  readonly age: HTMLTableCellElement
  fact: Fact
}

const cellOf = (fact: Fact): string => (fact.error === "" ? fact.value : fact.error)

export interface Detail {
  /** The agent that is open. */
  readonly agent: () => string | undefined
  readonly open: (id: string) => void
  readonly close: () => void
  readonly showFacts: (facts: ReadonlyArray<Fact>) => void
  /** `undefined`: no such agent. */
  readonly showLine: (line: Line | undefined, asOf: number) => void
  readonly tick: () => void
}

/** `onClose` is told which agent was open. */
export const make = (onClose: (id: string) => void): Detail => {
  const dialog = byId("detail", "dialog")
  const title = byId("detail-title", "h2")
  const state = byId("detail-state", "span")
  const summary = byId("detail-summary", "span")
  const body = byId("detail-facts", "tbody")
  const table = byId("detail-table", "table")
  const nothing = byId("detail-nothing", "p")
  const copy = byId("detail-copy", "button")
  const rows = new Map<string, Row>()
  let agent: string | undefined
  let line: Line | undefined

  const makeRow = (fact: Fact): Row => {
    const value = html("td", { class: "fact-value" })
    const age = html("td", { class: "fact-age" })
    const element = html("tr", {}, html("th", { scope: "row" }, fact.key), value, age)
    return { element, value, age, fact }
  }

  const showFact = (row: Row, fact: Fact) => {
    // What was there when the sheet was opened is not new.
    const changed = row.element.isConnected && row.value.textContent !== cellOf(fact)
    row.fact = fact
    row.element.classList.toggle("error", fact.error !== "")
    setText(row.value, cellOf(fact))
    row.age.title = Time.dateAndTime(fact.collectedAt)
    setText(row.age, Time.age(fact.collectedAt))
    if (!changed) return
    // Restarts the animation of a row that changes twice within its length.
    row.element.classList.remove("changed")
    requestAnimationFrame(() => row.element.classList.add("changed"))
  }

  const showFacts = (facts: ReadonlyArray<Fact>) => {
    const known = new Set(facts.map(({ key }) => key))
    for (const [key, row] of rows) {
      if (known.has(key)) continue
      row.element.remove()
      rows.delete(key)
    }
    let before = body.firstElementChild
    for (const fact of inOrder(facts)) {
      const row = rows.get(fact.key) ?? makeRow(fact)
      rows.set(fact.key, row)
      showFact(row, fact)
      if (row.element === before) before = before.nextElementSibling
      else body.insertBefore(row.element, before)
    }
    table.hidden = facts.length === 0
    nothing.hidden = facts.length > 0
    setText(nothing, "This agent has reported nothing, or was deleted.")
  }

  const tick = () => {
    for (const row of rows.values()) setText(row.age, Time.age(row.fact.collectedAt))
    setText(summary, line === undefined ? "" : `${sumOf(line)} · newest ${Time.age(line.lastCollectedAt)}`)
  }

  dialog.addEventListener("close", () => {
    const closed = agent
    agent = undefined
    if (closed !== undefined) onClose(closed)
  })
  // A click beside the sheet closes it.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close()
  })
  byId("detail-close", "button").addEventListener("click", () => dialog.close())
  copy.addEventListener("click", () => {
    navigator.clipboard.writeText(agent ?? "").then(
      () => setText(copy, "Copied"),
      () => setText(copy, "Not allowed")
    )
    setTimeout(() => setText(copy, "Copy id"), 2_000)
  })

  return {
    agent: () => agent,
    open: (id) => {
      if (agent === id) return
      agent = id
      line = undefined
      rows.clear()
      body.replaceChildren()
      setText(title, id)
      table.hidden = true
      nothing.hidden = false
      setText(nothing, "Reading…")
      if (!dialog.open) dialog.showModal()
    },
    close: () => dialog.close(),
    showFacts,
    showLine: (next, asOf) => {
      line = next
      const agentState = next === undefined ? undefined : stateOf(next, asOf)
      dialog.dataset["state"] = agentState ?? ""
      setText(state, agentState === undefined ? "" : stateNames[agentState])
      tick()
    },
    tick
  }
}
