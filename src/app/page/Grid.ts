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
import { Layout, type Range } from "./Layout.ts"
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

const isSame = (a: Range, b: Range): boolean => a.first === b.first && a.last === b.last

const nothing: Range = { first: 0, last: 0 }

export class Grid {
  private readonly options: Options
  private readonly cards = new Map<string, Card>()
  private lines: ReadonlyArray<Line> = []
  private asOf = 0
  private layout: Layout
  private frame = 0
  /** Whether there is more to do than to look which rows are in sight. */
  private changed = true
  private drawn = nothing
  private sight = nothing
  private sightIds = ""
  /** The card that the tab key comes to. */
  private current: string | undefined

  constructor(options: Options) {
    this.options = options
    const { list } = options
    this.layout = new Layout(list, 0)
    addEventListener("scroll", () => this.schedule(), { passive: true })
    addEventListener("resize", () => this.redraw(), { passive: true })
    new ResizeObserver(() => this.redraw()).observe(list)
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
    this.redraw()
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
    this.moveTo(this.placeOf(id))
  }

  private redraw(): void {
    this.changed = true
    this.schedule()
  }

  private schedule(): void {
    if (this.frame !== 0) return
    this.frame = requestAnimationFrame(() => {
      this.frame = 0
      this.draw()
    })
  }

  private placeOf(id: string | undefined): number {
    return id === undefined ? -1 : this.lines.findIndex((line) => line.id === id)
  }

  private range(more: number): Range {
    const { covered, list } = this.options
    const { top } = list.getBoundingClientRect()
    return this.layout.between(covered() - top, innerHeight - top, more)
  }

  private draw(): void {
    if (this.changed) {
      this.layout = new Layout(this.options.list, this.lines.length)
      this.options.list.style.height = `${this.layout.height}px`
    }
    const range = this.range(beyond)
    if (this.changed || !isSame(range, this.drawn)) this.drawCards(range)
    const sight = this.range(0)
    if (this.changed || !isSame(sight, this.sight)) this.tellSight(sight)
    this.changed = false
  }

  private drawCards(range: Range): void {
    this.drawn = range
    const places = this.placesIn(range)
    const shown = new Set<string>([...places.values()].map(({ id }) => id))
    for (const [id, card] of this.cards) {
      if (shown.has(id)) continue
      card.element.remove()
      this.cards.delete(id)
    }
    const { list } = this.options
    const focused = document.activeElement
    let before: Element | null = list.firstElementChild
    for (const [place, line] of [...places].sort(([a], [b]) => a - b)) {
      const card = this.cards.get(line.id) ?? this.makeCard(line)
      card.showLine(line, stateOf(line, this.asOf))
      card.button.tabIndex = line.id === this.current ? 0 : -1
      card.put(place, this.layout)
      // In the order in which they are read, moving only what is out of place.
      if (card.element === before) before = before.nextElementSibling
      else list.insertBefore(card.element, before)
    }
    // An element that is moved loses the focus.
    if (focused instanceof HTMLElement && focused !== document.activeElement && list.contains(focused)) {
      focused.focus({ preventScroll: true })
    }
  }

  /** The lines in a range, and the one with the focus, though it may be out of sight. */
  private placesIn({ first, last }: Range): Map<number, Line> {
    const places = new Map<number, Line>()
    for (let place = first; place < last; place++) {
      const line = this.lines[place]
      if (line !== undefined) places.set(place, line)
    }
    const place = this.placeOf(this.current)
    const line = this.lines[place]
    const isFocused = this.options.list.contains(document.activeElement)
    if (line !== undefined && (isFocused || places.has(place))) places.set(place, line)
    else this.current = (this.lines[this.range(0).first] ?? this.lines[0])?.id
    return places
  }

  private makeCard(line: Line): Card {
    const card = new Card(line, this.options.open)
    const facts = this.options.factsOf(line.id)
    if (facts !== undefined) card.showFacts(facts)
    this.cards.set(line.id, card)
    return card
  }

  private tellSight(sight: Range): void {
    this.sight = sight
    const ids = this.lines.slice(sight.first, sight.last).map(({ id }) => id)
    const joined = ids.join()
    if (joined === this.sightIds) return
    this.sightIds = joined
    this.options.onSight(ids)
  }

  private makeCurrent(id: string): void {
    this.current = id
    for (const card of this.cards.values()) card.button.tabIndex = card.line.id === id ? 0 : -1
  }

  private moveTo(place: number): void {
    const line = this.lines[place]
    if (line === undefined) return
    this.makeCurrent(line.id)
    const { covered, list } = this.options
    const { cardHeight, gap } = this.layout
    const y = scrollY + list.getBoundingClientRect().top + this.layout.yOf(place)
    const upper = y - covered() - gap
    const lower = y + cardHeight + gap - innerHeight
    if (scrollY > upper) scrollTo({ top: upper })
    else if (scrollY < lower) scrollTo({ top: lower })
    this.drawCards(this.range(beyond))
    this.cards.get(line.id)?.button.focus({ preventScroll: true })
  }

  private onKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) return
    const rows = Math.floor((innerHeight - this.options.covered()) / this.layout.rowHeight)
    const place = this.layout.moved(event.key, this.placeOf(this.current), rows)
    if (place === undefined) return
    event.preventDefault()
    this.moveTo(place)
  }
}
