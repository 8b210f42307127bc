import type { AgentStatsRow } from "../../AgentStats.ts"
import type { MetadataBatch } from "../../Metadata.ts"
import type { Refusal } from "../batcher/writeResult.ts"
import { isTooLong, maxKeyLength, maxTextLength } from "../metadata/limits.ts"

// What PostgreSQL is known to refuse, found before it costs a round trip. The
// memory store refuses the same, so that a test against it meets no surprise.

// PostgreSQL begins in 4714 BC; JavaScript's `Date`, in which times are read
// back, ends earlier than PostgreSQL does.
const minTime = -210_866_803_200_000
const maxTime = 8_640_000_000_000_000

const minBigint = -(2n ** 63n)
const maxBigint = 2n ** 63n - 1n

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

// A row may hold anything: types do not bind JavaScript, and what is thrown here would be blamed on no row.
const isUuid = (id: unknown): boolean => typeof id === "string" && uuid.test(id)

const isText = (text: unknown, maxLength: number): boolean =>
  typeof text === "string" && (text.length === 0 || (!text.includes("\0") && !isTooLong(text, maxLength)))

const whyNoText = (what: string, text: unknown, maxLength: number): string => {
  if (typeof text !== "string") return `the ${what} is no string`
  return text.includes("\0")
    ? `the ${what} contains a NUL character`
    : `the ${what} is longer than ${maxLength} characters`
}

const isTime = (milliseconds: unknown): boolean =>
  typeof milliseconds === "number" && milliseconds >= minTime && milliseconds <= maxTime

const outOfRange = "the time is none, or out of range"

const whyNoFact = (batch: MetadataBatch, row: number): string => {
  if (!isUuid(batch.agentIds[row])) return "the agent id is no UUID"
  if (!isText(batch.keys[row], maxKeyLength)) return whyNoText("key", batch.keys[row], maxKeyLength)
  if (!isText(batch.values[row], maxTextLength)) return whyNoText("value", batch.values[row], maxTextLength)
  if (!isText(batch.errors[row], maxTextLength)) return whyNoText("error", batch.errors[row], maxTextLength)
  return outOfRange
}

/** The rows that PostgreSQL would refuse whatever the table, and why. */
export const metadataRefusals = (batch: MetadataBatch): ReadonlyArray<Refusal> => {
  const { agentIds, collectedAt, errors, keys, values } = batch
  const refusals: Array<Refusal> = []
  // The facts of an agent follow each other, so most ids have just been checked.
  let checkedId: string | undefined
  let isAgent = false
  for (let row = 0; row < agentIds.length; row++) {
    const agentId = agentIds[row]
    if (agentId !== checkedId) {
      checkedId = agentId
      isAgent = isUuid(agentId)
    }
    if (
      !(
        isAgent &&
        isText(keys[row], maxKeyLength) &&
        isText(values[row], maxTextLength) &&
        isText(errors[row], maxTextLength) &&
        isTime(collectedAt[row])
      )
    ) {
      refusals.push({ position: row, why: whyNoFact(batch, row) })
    }
  }
  return refusals
}

const idsOfStats = ["id", "agentId", "userId", "templateId", "workspaceId"] as const

const countsOfStats = [
  "connectionCount",
  "rxPackets",
  "rxBytes",
  "txPackets",
  "txBytes",
  "sessionCountVSCode",
  "sessionCountJetBrains",
  "sessionCountReconnectingPTY",
  "sessionCountSSH"
] as const

const isBigint = (count: unknown): boolean =>
  typeof count === "bigint" && count >= minBigint && count <= maxBigint

const isProtocolCount = ([protocol, count]: [string, unknown]): boolean =>
  !protocol.includes("\0") && protocol.isWellFormed() && Number.isFinite(count)

const whyNoStats = (stats: AgentStatsRow): string | undefined => {
  for (const id of idsOfStats) if (!isUuid(stats[id])) return `${id} is no UUID`
  for (const count of countsOfStats)
    if (!isBigint(stats[count])) return `${count} is no bigint, or out of range`
  if (!isTime(stats.createdAt?.epochMilliseconds)) return outOfRange
  if (typeof stats.connectionMedianLatencyMs !== "number") return "connectionMedianLatencyMs is no number"
  return Object.entries(stats.connectionsByProto ?? {}).every(isProtocolCount)
    ? undefined
    : "connectionsByProto has a name or a count that JSON cannot hold"
}

/** The rows that PostgreSQL would refuse whatever the table, and why. */
export const statsRefusals = (rows: ReadonlyArray<AgentStatsRow>): ReadonlyArray<Refusal> => {
  const refusals: Array<Refusal> = []
  rows.forEach((stats, position) => {
    const why = whyNoStats(stats)
    if (why !== undefined) refusals.push({ position, why })
  })
  return refusals
}
