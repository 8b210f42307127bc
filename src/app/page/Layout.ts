/**
 * Where the cards of a grid are: so many in a row as have room, all of one size.
 * The style sheet says how large.
 *
 * @since 0.1.0
 */

/** Places from `first` to before `last`. */
export interface Range {
  readonly first: number
  readonly last: number
}

const pixels = (style: CSSStyleDeclaration, name: string): number =>
  Number.parseFloat(style.getPropertyValue(name))

export class Layout {
  readonly count: number
  readonly columns: number
  readonly cardWidth: number
  readonly cardHeight: number
  readonly gap: number

  /** Measures a list for so many cards. */
  constructor(list: HTMLElement, count: number) {
    const style = getComputedStyle(list)
    const width = list.clientWidth
    this.count = count
    this.gap = pixels(style, "--card-gap")
    this.cardHeight = pixels(style, "--card-height")
    this.columns = Math.max(1, Math.floor((width + this.gap) / (pixels(style, "--card-width") + this.gap)))
    this.cardWidth = (width - this.gap * (this.columns - 1)) / this.columns
  }

  get rowHeight(): number {
    return this.cardHeight + this.gap
  }

  get height(): number {
    return Math.max(0, Math.ceil(this.count / this.columns) * this.rowHeight - this.gap)
  }

  xOf(place: number): number {
    return (place % this.columns) * (this.cardWidth + this.gap)
  }

  yOf(place: number): number {
    return Math.floor(place / this.columns) * this.rowHeight
  }

  /** The places between two heights within the list, and `more` rows beyond each. */
  between(top: number, bottom: number, more: number): Range {
    const first = (Math.floor(top / this.rowHeight) - more) * this.columns
    const last = (Math.ceil(bottom / this.rowHeight) + more) * this.columns
    return { first: Math.max(0, Math.min(first, this.count)), last: Math.max(0, Math.min(last, this.count)) }
  }

  /** Where a key leads from a place; `undefined` for keys that lead nowhere. */
  moved(key: string, place: number, rowsInSight: number): number | undefined {
    const page = Math.max(1, rowsInSight - 1) * this.columns
    const last = this.count - 1
    const moves: { readonly [key: string]: number } = {
      ArrowRight: place + 1,
      ArrowLeft: place - 1,
      ArrowDown: place + this.columns,
      ArrowUp: place - this.columns,
      PageDown: Math.min(place + page, last),
      PageUp: Math.max(place - page, 0),
      Home: 0,
      End: last
    }
    return moves[key]
  }
}
