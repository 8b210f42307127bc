import type { AgentStatsRow } from "../AgentStats.ts"
import type { MetadataBatch } from "../Metadata.ts"

// What PostgreSQL is known to refuse, found before it costs a round trip. The
// memory store refuses the same, so that a test against it meets no surprise.

const maxKeyLength = 127
const maxTextLength = 65_535

// PostgreSQL begins in 4714 BC; JavaScript's `Date`, in which times are read
// back, ends earlier than PostgreSQL does.
const minTime = -210_866_803_200_000
const maxTime = 8_640_000_000_000_000

const minBigint = -(2n ** 63n)
const maxBigint = 2n ** 63n - 1n

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

// A row may hold anything: types do not bind JavaScript, and what is thrown here would be blamed on no row.
const isUuid = (id: unknown): boolean => typeof id === "string" && uuid.test(id)

const fits = (text: unknown, maxLength: number): boolean =>
  typeof text === "string" &&
  (text.length === 0 || (!text.includes("\0") && (text.length <= maxLength || codePoints(text) <= maxLength)))

// PostgreSQL counts code points, a JavaScript string UTF-16 units, of which
// there are never fewer.
const codePoints = (text: string): number => {
  let count = 0
  for (const _ of text) count++
  return count
}

const isTime = (milliseconds: number): boolean => milliseconds >= minTime && milliseconds <= maxTime

/** The positions of the rows that PostgreSQL would refuse. */
export const metadataAtFault = (batch: MetadataBatch): ReadonlyArray<number> => {
  const { agentIds, collectedAt, errors, keys, values } = batch
  const atFault: Array<number> = []
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
        fits(keys[row], maxKeyLength) &&
        fits(values[row], maxTextLength) &&
        fits(errors[row], maxTextLength) &&
        isTime(collectedAt[row] ?? Number.NaN)
      )
    ) {
      atFault.push(row)
    }
  }
  return atFault
}

const isBigint = (count: unknown): boolean =>
  typeof count === "bigint" && count >= minBigint && count <= maxBigint

const isProtocolCount = ([protocol, count]: [string, unknown]): boolean =>
  !protocol.includes("\0") && protocol.isWellFormed() && Number.isFinite(count)

/** The positions of the rows that PostgreSQL would refuse. */
export const statsAtFault = (rows: ReadonlyArray<AgentStatsRow>): ReadonlyArray<number> => {
  const atFault: Array<number> = []
  rows.forEach((stats, row) => {
    if (
      !(
        isUuid(stats.id) &&
        isUuid(stats.agentId) &&
        isUuid(stats.userId) &&
        isUuid(stats.templateId) &&
        isUuid(stats.workspaceId) &&
        isTime(stats.createdAt?.epochMilliseconds) &&
        isBigint(stats.connectionCount) &&
        isBigint(stats.rxPackets) &&
        isBigint(stats.rxBytes) &&
        isBigint(stats.txPackets) &&
        isBigint(stats.txBytes) &&
        isBigint(stats.sessionCountVSCode) &&
        isBigint(stats.sessionCountJetBrains) &&
        isBigint(stats.sessionCountReconnectingPTY) &&
        isBigint(stats.sessionCountSSH) &&
        typeof stats.connectionMedianLatencyMs === "number" &&
        Object.entries(stats.connectionsByProto ?? {}).every(isProtocolCount)
      )
    ) {
      atFault.push(row)
    }
  })
  return atFault
}
