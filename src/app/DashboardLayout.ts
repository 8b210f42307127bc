/**
 * How the dashboard's figures are laid out: as a table on a terminal, as one
 * line elsewhere.
 *
 * @since 0.1.0
 */
import { styleText } from "node:util"
import type { Accounting, Reason } from "../Batcher.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly title: string
  /** Since the start. */
  readonly seconds: number
  readonly metadata: Accounting
  readonly stats: Accounting
  readonly metadataBatches: ReadonlyArray<readonly [Reason, number]>
  readonly statsBatches: ReadonlyArray<readonly [Reason, number]>
  /** Written in the last second. */
  readonly rowsPerSecond: number
  readonly notifications: number
  /** Milliseconds; undefined when nothing was announced lately. */
  readonly p50: number | undefined
  readonly p99: number | undefined
  readonly isUp: boolean
  /** Bytes. */
  readonly rss: number
}

/** @since 0.1.0 */
export const count = (value: number): string => value.toLocaleString("en-US")

/** @since 0.1.0 */
export const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MB`

const clock = (seconds: number): string =>
  `${String(Math.floor(seconds / 60)).padStart(2, "0")}:${String(seconds % 60).padStart(2, "0")}`

const millis = (value: number | undefined): string => (value === undefined ? "-" : `${count(value)} ms`)

const batches = (byReason: ReadonlyArray<readonly [Reason, number]>): string =>
  byReason.map(([reason, number]) => `${reason} ${count(number)}`).join("  ")

const columns: ReadonlyArray<
  readonly [heading: string, width: number, of: (accounting: Accounting) => number]
> = [
  ["offered", 11, (accounting) => accounting.offered],
  ["superseded", 11, (accounting) => accounting.superseded],
  ["written", 11, (accounting) => accounting.written],
  ["pending", 9, (accounting) => accounting.queued + accounting.pending],
  ["in flight", 10, (accounting) => accounting.inFlight],
  ["dropped", 9, (accounting) => accounting.dropped],
  ["discarded", 10, (accounting) => accounting.discarded]
]

const headings = columns.map(([heading, width]) => heading.padStart(width)).join("")

const cells = (accounting: Accounting): string =>
  columns.map(([, width, of]) => count(of(accounting)).padStart(width)).join("")

/**
 * @category rendering
 * @since 0.1.0
 */
export const layout = (snapshot: Snapshot): ReadonlyArray<string> => [
  "",
  `${clock(snapshot.seconds)}  ${snapshot.title}`,
  "",
  styleText("dim", `${" ".repeat(8)}${headings}`),
  `metadata${cells(snapshot.metadata)}`,
  `stats   ${cells(snapshot.stats)}`,
  "",
  `batches   metadata  ${batches(snapshot.metadataBatches)}`,
  `          stats     ${batches(snapshot.statsBatches)}`,
  `written   ${count(snapshot.rowsPerSecond)} rows/s`,
  `notified  ${count(snapshot.notifications)}`,
  `latency   p50 ${millis(snapshot.p50)}  p99 ${millis(snapshot.p99)}  from add to being shown`,
  `database  ${snapshot.isUp ? styleText("green", "up") : styleText(["bold", "red"], "DOWN")}`,
  `memory    ${megabytes(snapshot.rss)} RSS`,
  ""
]

/**
 * Both batchers in one; what is pending apart, because that of the metadata is
 * bounded by the number of keys.
 *
 * @category rendering
 * @since 0.1.0
 */
export const summary = ({ metadata, stats, ...snapshot }: Snapshot): string =>
  [
    `${clock(snapshot.seconds)} ${snapshot.isUp ? "up  " : "DOWN"}`,
    `offered ${count(metadata.offered + stats.offered)}`,
    `superseded ${count(metadata.superseded + stats.superseded)}`,
    `written ${count(metadata.written + stats.written)} (${count(snapshot.rowsPerSecond)}/s)`,
    `pending ${count(metadata.queued + metadata.pending)} and ${count(stats.queued + stats.pending)}`,
    `dropped ${count(metadata.dropped + stats.dropped)}`,
    `batches ${batches(snapshot.metadataBatches.filter(([, number]) => number > 0)) || "0"}`,
    `notifications ${count(snapshot.notifications)}`,
    `latency p50 ${millis(snapshot.p50)} p99 ${millis(snapshot.p99)}`,
    `RSS ${megabytes(snapshot.rss)}`
  ].join(" | ")
