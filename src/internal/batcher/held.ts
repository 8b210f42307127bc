import type * as Tracer from "effect/Tracer"

/** What one call of `add` brings. It is the unit of the queue. */
export interface Report<out A> {
  readonly group: string
  readonly records: ReadonlyArray<A>
  readonly bytes: number
  /** When it was added, in milliseconds since the epoch. */
  readonly at: number
  /** The ids of the caller's span, if that is sampled. */
  readonly span: Tracer.AnySpan | undefined
}

/** Where records come from. */
export interface Origin {
  readonly group: string
  /** When the longest waiting of them was added. */
  since: number
  /** The spans of the reports that brought them; mostly one. */
  spans: ReadonlyArray<Tracer.AnySpan>
}

/** What waits of one group. It is the unit of a batch; a batch's end may split one. */
export interface Held<A> extends Origin {
  /** A report's own array, until a change makes a copy of it. */
  records: ReadonlyArray<A>
  /** The array above, once it is a copy that may be changed. */
  own: Array<A> | undefined
  bytes: number
  /** Whether it only says again what was written before, and nobody has to be told of it. */
  readonly quiet: boolean
}

const noSpans: ReadonlyArray<Tracer.AnySpan> = []

/** OpenTelemetry's default limit of links per span; exporters drop what is beyond it. */
export const maxSpans = 128

export const spansOf = (span: Tracer.AnySpan | undefined): ReadonlyArray<Tracer.AnySpan> =>
  span === undefined ? noSpans : [span]

export const joinSpans = (
  spans: ReadonlyArray<Tracer.AnySpan>,
  more: ReadonlyArray<Tracer.AnySpan>
): ReadonlyArray<Tracer.AnySpan> => {
  if (more.length === 0 || spans.length >= maxSpans) return spans
  return spans.length === 0 ? more : Array.from(new Set([...spans, ...more]))
}

/** A report as it waits while nothing has been merged into it. */
export const hold = <A>(report: Report<A>): Held<A> => ({
  group: report.group,
  records: report.records,
  own: undefined,
  bytes: report.bytes,
  since: report.at,
  spans: spansOf(report.span),
  quiet: false
})

/** The records of a held, in an array that may be changed. */
export const ownRecords = <A>(held: Held<A>): Array<A> => {
  if (held.own === undefined) {
    held.own = held.records.slice()
    held.records = held.own
  }
  return held.own
}

/** Takes the first records off a held. */
export const splitHeld = <A>(held: Held<A>, count: number, bytesOf: (record: A) => number): Held<A> => {
  const records = held.records.slice(0, count)
  const rest = held.records.slice(count)
  let bytes = 0
  for (const record of records) bytes += bytesOf(record)
  held.records = rest
  held.own = rest
  held.bytes -= bytes
  return { ...held, records, own: records, bytes }
}
