/**
 * What becomes of the facts of a report before the batcher takes them: the
 * limits of the server of Coder 2.31.
 *
 * @since 0.1.0
 */
import { Buffer } from "node:buffer"
import * as DateTime from "effect/DateTime"
import type { Metadata } from "../../Metadata.ts"
import type { ReportedFact } from "../api/Models.ts"

/**
 * Bytes of a value, or of an error.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxTextBytes = 2_048

/**
 * Bytes of all keys of a report. Coder 2.31 has it from the time when a
 * notification carried the keys.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxKeysBytes = 6_144

/** A text that was made from a longer one would keep that in memory for as long as it waits. */
const copy = (text: string): string => Buffer.from(text, "utf8").toString("utf8")

const trim = (text: string): string => {
  const trimmed = text.trim()
  return trimmed.length === text.length ? text : copy(trimmed)
}

/** At most `maxTextBytes` bytes of UTF-8, of whole characters. */
const cut = (text: string): string => {
  const bytes = Buffer.from(text, "utf8")
  let end = maxTextBytes
  // A byte 10xxxxxx continues the character before it.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString("utf8", 0, end)
}

const exceeds = (what: string, bytes: number): string =>
  `${what} of ${bytes} bytes exceeded ${maxTextBytes} bytes`

const toFact = (reported: ReportedFact, collectedAt: DateTime.Utc): Metadata => {
  let value = trim(reported.value ?? "")
  let error = trim(reported.error ?? "")
  const valueBytes = Buffer.byteLength(value)
  const errorBytes = Buffer.byteLength(error)
  if (valueBytes > maxTextBytes) {
    value = cut(value)
    error = exceeds("value", valueBytes)
  }
  if (errorBytes > maxTextBytes) error = exceeds("error", errorBytes)
  return { key: trim(reported.key), value, error, collectedAt }
}

/**
 * The facts that are within the limits, in order, and how many were left out
 * because the keys had become too long by then. Facts carry `now`, unless the
 * agent's own time is to count and it gave one.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromReport = (
  reported: ReadonlyArray<ReportedFact>,
  now: DateTime.Utc,
  timeOf: "server" | "agent"
): { readonly facts: ReadonlyArray<Metadata>; readonly leftOut: number } => {
  const facts: Array<Metadata> = []
  let keysBytes = 0
  for (const fact of reported) {
    keysBytes += Buffer.byteLength(fact.key)
    if (keysBytes > maxKeysBytes) break
    const collectedAt =
      timeOf === "agent" && fact.collectedAt !== undefined ? DateTime.makeUnsafe(fact.collectedAt) : now
    facts.push(toFact(fact, collectedAt))
  }
  return { facts, leftOut: reported.length - facts.length }
}
