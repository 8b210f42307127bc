/**
 * A small chart of the last two minutes: lines over time, drawn as SVG.
 *
 * Colours, widths and fonts are the style sheet's, so that a chart follows the
 * theme of the page by itself.
 *
 * @since 0.1.0
 */
import { html, setText, svg } from "./Dom.ts"
import * as Time from "./Time.ts"

/** Values over time, the same times for every series. `null`: no value then. */
export interface Series {
  /** Also the name of its colour in the style sheet. */
  readonly name: string
  readonly values: ReadonlyArray<number | null>
}

export interface Data {
  readonly times: ReadonlyArray<number>
  readonly series: ReadonlyArray<Series>
  /** The newest value, as it stands above the chart. */
  readonly headline: string
  /** What else is worth knowing, in a few words. Of several series it is their names. */
  readonly note: string
}

export interface Options {
  readonly title: string
  readonly unit: string
  readonly format: (value: number) => string
  /** The least that the height of the chart stands for. */
  readonly atLeast: number
}

export interface Chart {
  readonly element: HTMLElement
  readonly draw: (data: Data) => void
}

/** Milliseconds across the width of a chart. */
export const span = 120_000

const width = 240
const height = 56

const xOf = (time: number, end: number): number => ((time - end + span) / span) * width

/** The next number that starts with 1, 2 or 5: a height that does not change with every value. */
const roundUp = (value: number): number => {
  const power = 10 ** Math.floor(Math.log10(value))
  const step = [1, 2, 5, 10].find((factor) => factor * power >= value) ?? 10
  return step * power
}

type Point = readonly [x: number, y: number]

/** Values further apart than this are not joined: nobody knows what was between. */
const longestGap = (15_000 / span) * width

/** A line through the points; a lone one is a dot, by the round ends of the line. */
const lineOf = (points: ReadonlyArray<Point>): string =>
  points
    .map(([x, y], index) => {
      const before = points[index - 1]
      const joined = before !== undefined && x - before[0] <= longestGap
      return `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${joined ? "" : "h0"}`
    })
    .join("")

/** What is below the points, down to zero. */
const areaOf = (points: ReadonlyArray<Point>): string => {
  const first = points[0]
  const last = points.at(-1)
  if (first === undefined || last === undefined) return ""
  const along = points.map(([x, y]) => `L${x.toFixed(1)} ${y.toFixed(1)}`).join("")
  return `M${first[0].toFixed(1)} ${height}${along}L${last[0].toFixed(1)} ${height}Z`
}

/** Where in time the pointer is, and what the series say there. */
const nearest = (times: ReadonlyArray<number>, at: number): number => {
  let best = -1
  for (const [index, time] of times.entries()) {
    const held = times[best]
    if (held === undefined || Math.abs(time - at) < Math.abs(held - at)) best = index
  }
  return best
}

export const make = ({ title, unit, format, atLeast }: Options): Chart => {
  const value = html("output", { class: "value", "aria-live": "off" })
  const note = html("p", { class: "note" })
  const top = html("span", { class: "top", "aria-hidden": "true" })
  const lines = svg("g")
  const cursor = svg("line", { class: "cursor", y1: 0, y2: height, visibility: "hidden" })
  const plot = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" },
    svg("line", { class: "rule", x1: 0, x2: width, y1: 0.5, y2: 0.5 }),
    svg("line", { class: "rule", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }),
    lines,
    cursor
  )
  const element = html(
    "figure",
    { class: "chart" },
    html("figcaption", {}, title),
    html("p", { class: "headline" }, value, " ", html("span", { class: "unit" }, unit)),
    html("div", { class: "plot" }, plot, top),
    note
  )
  let data: Data = { times: [], series: [], headline: "–", note: "" }
  let end = 0
  let pointer: number | undefined

  /** Above the chart: the newest values, or those under the pointer. */
  const caption = () => {
    const index = pointer === undefined ? -1 : nearest(data.times, end - span + pointer * span)
    const time = data.times[index]
    if (time === undefined) {
      cursor.setAttribute("visibility", "hidden")
      setText(value, data.headline)
      if (data.series.length > 1) {
        note.replaceChildren(
          ...data.series.map(({ name }) => html("span", { class: `legend ${name}` }, name))
        )
      } else setText(note, data.note)
      return
    }
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, xOf(time, end).toFixed(1))
    cursor.setAttribute("visibility", "visible")
    const said = data.series.flatMap(({ name, values }) => {
      const at = values[index]
      return at === null || at === undefined
        ? []
        : [data.series.length > 1 ? `${name} ${format(at)}` : format(at)]
    })
    setText(
      value,
      said.length === 1 && data.series.length === 1 ? (said[0] ?? "–") : said.length === 0 ? "–" : ""
    )
    setText(
      note,
      `${Time.timeOfDay(time)}${data.series.length > 1 ? ` · ${said.join(" · ") || "none"}` : ""}`
    )
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect()
    pointer = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))
    caption()
  })
  plot.addEventListener("pointerleave", () => {
    pointer = undefined
    caption()
  })

  const draw = (next: Data) => {
    data = next
    end = data.times.at(-1) ?? 0
    const known = data.series.flatMap(({ values }) => values.filter((at) => at !== null))
    const limit = roundUp(Math.max(atLeast, ...known))
    setText(top, format(limit))
    const drawn = data.series.flatMap(({ name, values }) => {
      const points = values.flatMap((at, index): ReadonlyArray<Point> => {
        const time = data.times[index]
        return at === null || time === undefined
          ? []
          : [[xOf(time, end), height - 1 - (at / limit) * (height - 2)]]
      })
      const colour = known.every((at) => at === 0) ? "zero" : name
      const line = svg("path", { class: `line ${colour}`, d: lineOf(points) })
      return data.series.length > 1
        ? [line]
        : [svg("path", { class: `area ${colour}`, d: areaOf(points) }), line]
    })
    lines.replaceChildren(...drawn)
    caption()
    const range =
      known.length === 0
        ? "no values yet"
        : `between ${format(Math.min(...known))} and ${format(Math.max(...known))}`
    plot.setAttribute("aria-label", `${title}, last two minutes: ${range} ${unit}`)
  }

  caption()
  return { element, draw }
}
