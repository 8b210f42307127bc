/**
 * What the viewer wants to see: kept in the address, so that it can be linked
 * to and survives a reload.
 *
 * @since 0.1.0
 */
import { byId, html, setText } from "./Dom.ts"
import { type Counts, isSort, stateNames, states, type Wanted } from "./Fleet.ts"

export interface View {
  readonly wanted: () => Wanted
  /** The agent whose facts are open. */
  readonly agent: () => string | undefined
  readonly openAgent: (id: string | undefined) => void
  readonly showCounts: (counts: Counts) => void
}

type Choice = Wanted["state"]

/** Marks the entry in the browser's history that opening an agent has made. */
const opened = "opened"

const choices: ReadonlyArray<Choice> = ["all", ...states]

const parameters = (): URLSearchParams => new URLSearchParams(location.hash.slice(1))

/** `onChange` is told when something else is wanted, also by going back. */
export const make = (onChange: () => void): View => {
  const filters = byId("filters", "fieldset")
  const search = byId("search", "input")
  const sort = byId("sort", "select")
  const counts = new Map<Choice, HTMLElement>()
  const inputs = new Map<Choice, HTMLInputElement>()

  for (const choice of choices) {
    const input = html("input", { type: "radio", name: "state", value: choice })
    const count = html("span", { class: "count" }, "0")
    const name = choice === "all" ? "All" : stateNames[choice]
    filters.append(
      html("label", { "data-state": choice }, input, html("span", { class: "name" }, name), count)
    )
    counts.set(choice, count)
    inputs.set(choice, input)
  }

  const read = () => {
    const held = parameters()
    const by = held.get("sort") ?? "id"
    search.value = held.get("search") ?? ""
    sort.value = isSort(by) ? by : "id"
    const chosen = choices.find((choice) => choice === held.get("state")) ?? "all"
    for (const [choice, input] of inputs) input.checked = choice === chosen
  }

  const wanted = (): Wanted => ({
    search: search.value,
    state: choices.find((choice) => inputs.get(choice)?.checked) ?? "all",
    sort: isSort(sort.value) ? sort.value : "id"
  })

  const hashOf = (agent: string | undefined): string => {
    const { search, sort, state } = wanted()
    const held = new URLSearchParams()
    if (search !== "") held.set("search", search)
    if (state !== "all") held.set("state", state)
    if (sort !== "id") held.set("sort", sort)
    if (agent !== undefined) held.set("agent", agent)
    return held.size === 0 ? location.pathname : `#${held}`
  }

  const agent = () => parameters().get("agent") ?? undefined

  for (const element of [filters, search, sort]) {
    element.addEventListener("input", () => {
      history.replaceState(null, "", hashOf(agent()))
      onChange()
    })
  }
  addEventListener("popstate", () => {
    read()
    onChange()
  })
  // As on many pages, a slash goes to the search.
  addEventListener("keydown", (event) => {
    const elsewhere =
      event.target instanceof HTMLInputElement || document.querySelector("dialog[open]") !== null
    if (event.key !== "/" || elsewhere || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    search.focus()
  })
  read()

  return {
    wanted,
    agent,
    openAgent: (id) => {
      if (id === agent()) return
      if (id !== undefined) history.pushState(opened, "", hashOf(id))
      // Closing is going back, so that going back later does not open it again.
      else if (history.state === opened) return history.back()
      else history.replaceState(null, "", hashOf(undefined))
      onChange()
    },
    showCounts: (held) => {
      for (const [choice, element] of counts) setText(element, held[choice].toLocaleString("en"))
    }
  }
}
