import type * as Tracer from "effect/Tracer"

/** Where records come from. */
export interface Origin {
  readonly group: string
  /** When the longest waiting of them was added. */
  since: number
  /** The spans of the reports that brought them; mostly one. */
  spans: ReadonlyArray<Tracer.AnySpan>
}

/**
 * Records of one group. One call of `add` brings one, the queue holds them as
 * they came, and a batch is a list of them; a batch's end may split one.
 */
export interface Held<A> extends Origin {
  /** The array that was added, until a change makes a copy of it. */
  records: ReadonlyArray<A>
  /** The array above, once it is a copy that may be changed. */
  own: Array<A> | undefined
  bytes: number
  /** The keys of its records, if they are known: one array for all that list the same. */
  keys: ReadonlyArray<string> | undefined
  /** When the oldest and the newest of its records were collected; to be trusted while `keys` are known. */
  oldest: number
  newest: number
  /** Whether it only says again what was written before, and nobody has to be told of it. */
  readonly quiet: boolean
}

export const noSpans: ReadonlyArray<Tracer.AnySpan> = []

/** OpenTelemetry's default limit of links per span; exporters drop what is beyond it. */
export const maxSpans = 128

export const joinSpans = (
  spans: ReadonlyArray<Tracer.AnySpan>,
  more: ReadonlyArray<Tracer.AnySpan>
): ReadonlyArray<Tracer.AnySpan> => {
  if (more.length === 0 || spans.length >= maxSpans) return spans
  return spans.length === 0 ? more : Array.from(new Set([...spans, ...more]))
}

/** Of records whose keys are not known. */
export const unknownKeys = { keys: undefined, oldest: 0, newest: 0 }

/** The records of a held, in an array that may be changed: then its keys are not known any more. */
export const ownRecords = <A>(held: Held<A>): Array<A> => {
  if (held.own === undefined) {
    held.own = held.records.slice()
    held.records = held.own
  }
  held.keys = undefined
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
  held.keys = undefined
  return { ...held, records, own: records, bytes }
}
