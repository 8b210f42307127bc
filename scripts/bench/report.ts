/**
 * What a row of the table measured, printed and kept as JSON.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { availableParallelism, cpus, release, totalmem, type } from "node:os"
import { join } from "node:path"
import { ratio, type Summary, summarize } from "./statistics.ts"

export interface Measured {
  readonly name: string
  readonly label: string
  readonly unit: string
  readonly value: Summary
  /** Further columns of the printed table. */
  readonly notes?: Readonly<Record<string, string>> | undefined
}

export interface Target {
  readonly what: string
  readonly value: Summary
  readonly target: { readonly atMost: number } | { readonly atLeast: number }
}

export interface Row {
  readonly row: string
  readonly title: string
  readonly measured: ReadonlyArray<Measured>
  readonly targets: ReadonlyArray<Target>
  /** Ratios worth knowing that are held to nothing. */
  readonly ratios?: ReadonlyArray<Omit<Target, "target">> | undefined
}

/** A row of the working tree's code beside that of another revision. */
export const newOverOld = ({
  measured = [],
  pairs,
  row,
  title,
  unit
}: {
  readonly row: string
  readonly title: string
  readonly unit: string
  /** What was measured of both, round by round. */
  readonly pairs: ReadonlyArray<{
    readonly label: string
    readonly unit?: string
    readonly now: ReadonlyArray<number>
    readonly before: ReadonlyArray<number>
  }>
  /** Figures of which no ratio is taken. */
  readonly measured?: ReadonlyArray<Measured>
}): Row => ({
  row: `${row}-against`,
  title,
  measured: [
    ...pairs.flatMap((pair) =>
      (["now", "before"] as const).map((when) => ({
        name: `${pair.label}/${when}`,
        label: `${pair.label}, ${when}`,
        unit: pair.unit ?? unit,
        value: summarize(pair[when])
      }))
    ),
    ...measured
  ],
  targets: [],
  ratios: pairs.map(({ before, label, now }) => ({
    what: `${label}, now over before`,
    value: ratio(now, before)
  }))
})

export const isMet = ({ target, value }: Target): boolean =>
  "atMost" in target ? value.median <= target.atMost : value.median >= target.atLeast

const digits = (n: number) =>
  n >= 1_000
    ? Math.round(n).toLocaleString("en-US")
    : n >= 100
      ? n.toFixed(0)
      : n >= 10
        ? n.toFixed(1)
        : n.toFixed(2)

const spread = ({ max, min }: Summary) => `${digits(min)}–${digits(max)}`

const table = (rows: ReadonlyArray<Readonly<Record<string, string>>>): string => {
  const columns = Object.keys(rows[0] ?? {})
  const width = (column: string) => Math.max(column.length, ...rows.map((row) => row[column]?.length ?? 0))
  const line = (cell: (column: string) => string) =>
    `| ${columns.map((column) => cell(column).padEnd(width(column))).join(" | ")} |`
  return [
    line((column) => column),
    line((column) => "-".repeat(width(column))),
    ...rows.map((row) => line((column) => row[column] ?? ""))
  ].join("\n")
}

export const print = (row: Row): void => {
  console.log(`\n## ${row.title}\n`)
  console.log(
    table(
      row.measured.map(({ label, notes, unit, value }) => ({
        "": label,
        median: `${digits(value.median)} ${unit}`,
        spread: spread(value),
        ...notes
      }))
    )
  )
  const ratios = [
    ...row.targets.map((target) => ({
      what: target.what,
      median: digits(target.value.median),
      spread: spread(target.value),
      target:
        "atMost" in target.target
          ? `≤ ${digits(target.target.atMost)}`
          : `≥ ${digits(target.target.atLeast)}`,
      "": isMet(target) ? "met" : "NOT MET"
    })),
    ...(row.ratios ?? []).map(({ value, what }) => ({
      what,
      median: digits(value.median),
      spread: spread(value),
      target: "–",
      "": ""
    }))
  ]
  if (ratios.length > 0) console.log(`\n${table(ratios)}`)
}

const machine = {
  cpu: `${availableParallelism()} × ${cpus()[0]?.model ?? "unknown"}`,
  memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
  system: `${type()} ${release()}`,
  node: process.version
}

const rounded = (_key: string, value: unknown) =>
  typeof value === "number" ? Number(value.toPrecision(5)) : value

export const save = (directory: string, row: Row): void => {
  mkdirSync(directory, { recursive: true })
  const targets = row.targets.map((target) => ({ ...target, met: isMet(target) }))
  const content = { ...row, targets, machine, measuredAt: new Date().toISOString() }
  writeFileSync(join(directory, `${row.row}.json`), `${JSON.stringify(content, rounded, 2)}\n`)
}
