/**
 * Draws the chart of this folder's README from the figures. Colours and text are
 * readable on a white page as on a dark one; the background is the page's.
 *
 * What differs by orders of magnitude stands on a logarithmic axis, as dots:
 * such an axis has no zero, so the length of a bar would mean nothing.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as echarts from "echarts"
import type { Measured, Row } from "./report.ts"

const text = "#7a818a"
const line = "#7a818a55"
const colours = { ours: "#2f81f7", limit: "#57ab5a", other: "#a4adb8" }

const colourOf = ({ label, name }: Measured) =>
  label.startsWith("effect-metadata-batcher")
    ? colours.ours
    : name === "limit" || name === "bare"
      ? colours.limit
      : colours.other

const format = (value: number) =>
  value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toFixed(0)

interface Panel {
  readonly row: Row
  readonly title: string
  readonly axis: "log" | "value"
  readonly left: number
  readonly top: number
  readonly width: number
  readonly labelled: boolean
}

const barHeight = 24
const labelWidth = 290

const decadeBelow = (value: number) => 10 ** Math.floor(Math.log10(value))

const panelOptions = ({ axis, labelled, left, row, top, width }: Panel, index: number) => {
  const measured = row.measured.toReversed()
  const at = { xAxisIndex: index, yAxisIndex: index }
  return {
    grid: { left, top, width, height: measured.length * barHeight },
    xAxis: {
      gridIndex: index,
      type: axis,
      ...(axis === "log" ? { min: decadeBelow(Math.min(...measured.map(({ value }) => value.min))) } : {}),
      axisLabel: { color: text, formatter: format },
      splitLine: { lineStyle: { color: line } }
    },
    yAxis: {
      gridIndex: index,
      type: "category" as const,
      data: measured.map(({ label }) => label),
      axisLabel: { show: labelled, color: text, fontSize: 12 },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: line } }
    },
    series: [
      {
        ...at,
        ...(axis === "log"
          ? { type: "scatter" as const, symbolSize: 11 }
          : { type: "bar" as const, barWidth: 14 }),
        data: measured.map((each, i) => ({
          value: [each.value.median, i],
          itemStyle: { color: colourOf(each) }
        }))
      },
      {
        // The spread, and beyond it the median in figures.
        ...at,
        type: "custom" as const,
        data: measured.map(({ value }, i) => [value.min, i, value.max, value.median]),
        renderItem: (
          _: unknown,
          api: echarts.CustomSeriesRenderItemAPI
        ): echarts.CustomSeriesRenderItemReturn => {
          const [x1 = 0, y = 0] = api.coord([api.value(0), api.value(1)])
          const [x2 = 0] = api.coord([api.value(2), api.value(1)])
          return {
            type: "group",
            children: [
              { type: "line", shape: { x1, x2, y1: y, y2: y }, style: { stroke: text, lineWidth: 2 } },
              {
                type: "text",
                style: {
                  x: x2 + 6,
                  y,
                  text: format(Number(api.value(3))),
                  fill: text,
                  fontSize: 12,
                  verticalAlign: "middle"
                }
              }
            ]
          }
        }
      }
    ]
  }
}

const render = (panels: ReadonlyArray<Panel>, size: { readonly width: number; readonly height: number }) => {
  const options = panels.map(panelOptions)
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, ...size })
  chart.setOption({
    animation: false,
    textStyle: { fontFamily: "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" },
    title: panels.map(({ left, title, top }) => ({
      text: title,
      left,
      top: top - 34,
      padding: 0,
      textStyle: { color: text, fontSize: 13, fontWeight: 600 }
    })),
    grid: options.map(({ grid }) => grid),
    xAxis: options.map(({ xAxis }) => xAxis),
    yAxis: options.map(({ yAxis }) => yAxis),
    series: options.flatMap(({ series }) => series)
  } as echarts.EChartsOption)
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}

/** Draws `chart.svg` into the directory, if the figures it shows are all there. */
export const draw = (directory: string): boolean => {
  const files = ["w1", "w2", "postgres"].map((name) => join(directory, `${name}.json`))
  if (!files.every((file) => existsSync(file))) return false
  const [w1, w2, postgres] = files.map((file) => JSON.parse(readFileSync(file, "utf8")) as Row) as [
    Row,
    Row,
    Row
  ]
  const top = 44
  const below = top + w1.measured.length * barHeight + 84
  const width = 280
  const gap = 90
  const panels: ReadonlyArray<Panel> = [
    {
      row: w1,
      title: "2,000 agents: ns per fact (less is better)",
      axis: "log",
      left: labelWidth,
      top,
      width,
      labelled: true
    },
    {
      row: w2,
      title: "40 agents (both on logarithmic scales)",
      axis: "log",
      left: labelWidth + width + gap,
      top,
      width,
      labelled: false
    },
    {
      row: postgres,
      title: "Into PostgreSQL: facts/s (more is better)",
      axis: "value",
      left: labelWidth,
      top: below,
      width: 2 * width + gap - 30,
      labelled: true
    }
  ]
  const size = {
    width: labelWidth + 2 * width + gap + 70,
    height: below + postgres.measured.length * barHeight + 40
  }
  writeFileSync(join(directory, "chart.svg"), render(panels, size))
  return true
}
