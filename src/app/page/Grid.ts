/**
 * The fleet as a grid of cards, of which only those in sight exist.
 *
 * The page scrolls as a whole; the list is as high as all its rows, and the
 * cards of the rows in sight are put where they belong. It is one stop for the
 * tab key, and the arrow keys move within.
 *
 * @since 0.1.0
 */
import { Card } from "./Card.ts"
import { stateOf } from "./Fleet.ts"
import type { Fact, Line } from "./Wire.ts"

export interface Options {
  readonly list: HTMLOListElement
  /** How much of the window's top is covered by what stays there. */
  readonly covered: () => number
  readonly open: (id: string) => void
  /** Told which agents are in sight, once that has changed. */
  readonly onSight: (ids: ReadonlyArray<string>) => void
  readonly factsOf: (id: string) => ReadonlyArray<Fact> | undefined
}

/** Rows drawn beyond the edge, so that quick scrolling meets cards. */
const beyond = 2

const pixels = (style: CSSStyleDeclaration, name: string): number =>
  Number.parseFloat(style.getPropertyValue(name))

export class Grid {
  private readonly options: Options
  private readonly cards = new Map<string, Card>()
  private lines: ReadonlyArray<Line> = []
  private asOf = 0
  private columns = 1
  private cardHeight = 1
  private gap = 0
  private frame = 0
  private sight = ""
  /** The card that the tab key comes to. */
  private current: string | undefined

  constructor(options: Options) {
    this.options = options
    const { list } = options
    addEventListener("scroll", () => this.schedule(), { passive: true })
    addEventListener("resize", () => this.schedule(), { passive: true })
    new ResizeObserver(() => this.schedule()).observe(list)
    list.addEventListener("keydown", (event) => this.onKey(event))
    list.addEventListener("focusin", (event) => {
      const card = [...this.cards.values()].find(({ button }) => button === event.target)
      if (card !== undefined) this.makeCurrent(card.line.id)
    })
  }

  /** Shows these agents, in this order, as of a time. */
  show(lines: ReadonlyArray<Line>, asOf: number): void {
    this.lines = lines
    this.asOf = asOf
    this.schedule()
  }

  showFacts(id: string, facts: ReadonlyArray<Fact>): void {
    this.cards.get(id)?.showFacts(facts)
  }

  /** Lets the ages go on. */
  tick(): void {
    for (const card of this.cards.values()) card.showAge()
  }

  /** Moves the focus to an agent's card, if it is among those shown. */
  focus(id: string): void {
    const index = this.lines.findIndex((line) => line.id === id)
    if (index >= 0) this.moveTo(index)
  }

  private schedule(): void {
    if (this.frame !== 0) return
    this.frame = requestAnimationFrame(() => {
      this.frame = 0
      this.draw()
    })
  }

  private measure(): void {
    const { list } = this.options
    const style = getComputedStyle(list)
    this.cardHeight = pixels(style, "--card-height")
    this.gap = pixels(style, "--card-gap")
    const least = pixels(style, "--card-width")
    this.columns = Math.max(1, Math.floor((list.clientWidth + this.gap) / (least + this.gap)))
    const rows = Math.ceil(this.lines.length / this.columns)
    list.style.height = `${Math.max(0, rows * (this.cardHeight + this.gap) - this.gap)}px`
  }

  /** The places from `first` to before `last` that are in sight, `more` rows beyond the edges included. */
  private range(more: number): readonly [first: number, last: number] {
    const { covered, list } = this.options
    const top = list.getBoundingClientRect().top
    const rowHeight = this.cardHeight + this.gap
    const first = Math.floor((covered() - top) / rowHeight) - more
    const last = Math.ceil((innerHeight - top) / rowHeight) + more
    return [Math.max(0, first * this.columns), Math.min(this.lines.length, Math.max(0, last * this.columns))]
  }

  private draw(): void {
    this.measure()
    const { list } = this.options
    const [first, last] = this.range(beyond)
    const places = new Map<number, Line>()
    for (let index = first; index < last; index++) {
      const line = this.lines[index]
      if (line !== undefined) places.set(index, line)
    }
    this.keepCurrent(places)

    const shown = new Set([...places.values()].map(({ id }) => id))
    for (const [id, card] of this.cards) {
      if (shown.has(id)) continue
      card.element.remove()
      this.cards.delete(id)
    }
    const width = (list.clientWidth - this.gap * (this.columns - 1)) / this.columns
    const focused = document.activeElement
    let before: Element | null = list.firstElementChild
    for (const [index, line] of [...places].sort(([a], [b]) => a - b)) {
      const card = this.cardOf(line)
      card.showLine(line, stateOf(line, this.asOf))
      this.place(card.element, index, width)
      // In the order in which they are read, moving only what is out of place.
      if (card.element === before) before = before.nextElementSibling
      else list.insertBefore(card.element, before)
    }
    if (focused instanceof HTMLElement && focused !== document.activeElement && list.contains(focused)) {
      focused.focus({ preventScroll: true })
    }
    this.tellSight()
  }

  /** The card with the focus, or the one the tab key comes to, stays though it may be out of sight. */
  private keepCurrent(places: Map<number, Line>): void {
    const index = this.current === undefined ? -1 : this.lines.findIndex(({ id }) => id === this.current)
    const line = this.lines[index]
    const focused = this.options.list.contains(document.activeElement)
    if (line !== undefined && (focused || places.has(index))) places.set(index, line)
    else {
      const [first, last] = this.range(0)
      this.current = (this.lines[first < last ? first : 0] ?? this.lines[0])?.id
    }
    for (const card of this.cards.values()) card.button.tabIndex = card.line.id === this.current ? 0 : -1
  }

  private cardOf(line: Line): Card {
    const known = this.cards.get(line.id)
    if (known !== undefined) return known
    const card = new Card(line, this.options.open)
    card.button.tabIndex = line.id === this.current ? 0 : -1
    const facts = this.options.factsOf(line.id)
    if (facts !== undefined) card.showFacts(facts)
    this.cards.set(line.id, card)
    return card
  }

  private place(element: HTMLElement, index: number, width: number): void {
    const x = (index % this.columns) * (width + this.gap)
    const y = Math.floor(index / this.columns) * (this.cardHeight + this.gap)
    element.style.width = `${width}px`
    element.style.transform = `translate(${x}px, ${y}px)`
    element.setAttribute("aria-posinset", String(index + 1))
    element.setAttribute("aria-setsize", String(this.lines.length))
  }

  private tellSight(): void {
    const ids = this.lines.slice(...this.range(0)).map(({ id }) => id)
    const sight = [...ids].sort().join()
    if (sight === this.sight) return
    this.sight = sight
    this.options.onSight(ids)
  }

  private makeCurrent(id: string): void {
    this.current = id
    for (const card of this.cards.values()) card.button.tabIndex = card.line.id === id ? 0 : -1
  }

  private moveTo(index: number): void {
    const line = this.lines[index]
    if (line === undefined) return
    this.makeCurrent(line.id)
    const top = scrollY + this.options.list.getBoundingClientRect().top
    const y = top + Math.floor(index / this.columns) * (this.cardHeight + this.gap)
    const upper = y - this.options.covered() - this.gap
    const lower = y + this.cardHeight + this.gap - innerHeight
    if (scrollY > upper) scrollTo({ top: upper })
    else if (scrollY < lower) scrollTo({ top: lower })
    this.draw()
    this.cards.get(line.id)?.button.focus({ preventScroll: true })
  }

  private onKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) return
    const index = this.lines.findIndex(({ id }) => id === this.current)
    const page = Math.max(1, Math.floor(innerHeight / (this.cardHeight + this.gap)) - 1) * this.columns
    const moves: { readonly [key: string]: number } = {
      ArrowRight: index + 1,
      ArrowLeft: index - 1,
      ArrowDown: index + this.columns,
      ArrowUp: index - this.columns,
      PageDown: Math.min(index + page, this.lines.length - 1),
      PageUp: Math.max(index - page, 0),
      Home: 0,
      End: this.lines.length - 1
    }
    const target = moves[event.key]
    if (target === undefined) return
    event.preventDefault()
    this.moveTo(target)
  }
}
