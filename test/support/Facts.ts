/** Agents, facts and batches for tests. */
import { assert } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { AgentId } from "../../src/AgentId.ts"
import * as AgentIdChunks from "../../src/AgentIdChunks.ts"
import type * as Batcher from "../../src/Batcher.ts"
import type { Metadata, MetadataBatch } from "../../src/Metadata.ts"

export const makeAgentId = (): AgentId => AgentId.make(crypto.randomUUID())

/** Agent ids in a fixed order: number 0, 1, … */
export const agentIdOf = (number: number): AgentId =>
  AgentId.make(`00000000-0000-4000-8000-${number.toString(16).padStart(12, "0")}`)

export const fact = (key: string, value: string, at = 0, error = ""): Metadata => ({
  key,
  value,
  error,
  collectedAt: DateTime.makeUnsafe(at)
})

/** `count` facts of different keys. */
export const facts = (count: number, value = "", at = 0): ReadonlyArray<Metadata> =>
  Array.from({ length: count }, (_, key) => fact(`key ${key}`, value, at))

/** One row of a batch. */
export interface Row {
  readonly agentId: AgentId
  readonly key: string
  readonly value: string
  readonly collectedAt: number
}

export const identify = (row: { readonly agentId: AgentId; readonly key: string }): string =>
  `${row.agentId} ${row.key}`

/** The rows of a batch in their order. */
export const toRows = ({ agentIds, collectedAt, keys, values }: MetadataBatch): ReadonlyArray<Row> =>
  agentIds.map((agentId, row) => ({
    agentId,
    key: keys[row] as string,
    value: values[row] as string,
    collectedAt: collectedAt[row] ?? Number.NaN
  }))

/** A batch as rows of agent id, key, value, time; sorted, as no order is promised. */
export const rowsOf = (batch: MetadataBatch): ReadonlyArray<readonly [AgentId, string, string, number]> => {
  for (const column of [batch.keys, batch.values, batch.errors, batch.collectedAt]) {
    assert.strictEqual(column.length, batch.agentIds.length)
  }
  return toRows(batch)
    .map(({ agentId, collectedAt, key, value }) => [agentId, key, value, collectedAt] as const)
    .sort(([agentA, keyA], [agentB, keyB]) => (agentA + keyA < agentB + keyB ? -1 : 1))
}

/** The agents that a notification names, in their order. */
export const agentsOf = (payload: string): ReadonlyArray<AgentId> =>
  Result.getOrThrow(AgentIdChunks.decode(payload))

/** Law 2: every fact is in one place. Asked thousands of times, so that it says nothing while all is well. */
export const assertAddsUp = (account: Batcher.Accounting) =>
  Effect.sync(() => {
    let sum = -account.offered
    for (const count of Object.values(account)) sum += count
    if (sum !== account.offered) assert.fail(`the account does not add up: ${JSON.stringify(account)}`)
  })
