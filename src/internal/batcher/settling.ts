import type { Account } from "./account.ts"
import type { Environment } from "./accumulator.ts"
import { type Batch, eachHeld, notWritten, type Outcome } from "./batch.ts"
import type { Held } from "./held.ts"

/** Counts what needs no place any more, and hands it on. What is refused or was not written is for the accumulator. */
export const countSettled = <A>(environment: Environment<A>, batch: Batch<A>, outcome: Outcome): void => {
  const { account, discard, discards } = environment
  const { failed, failure, missing, superseded } = outcome
  account.inFlight -= batch.records.length
  account.bytes -= batch.bytes
  account.superseded += superseded.length
  account.discarded += missing.length + failed.length
  account.written += batch.records.length - notWritten(outcome).length
  if (!discards) return
  eachHeld(batch, missing, (_, record, { group }) => discard({ group, record, reason: "missing", why: "" }))
  const why = failure?.message ?? ""
  eachHeld(batch, failed, (_, record, { group }) => discard({ group, record, reason: "failed", why }))
}

/** The rows that the store refused, with why. */
export const eachRefused = <A>(
  batch: Batch<A>,
  { refused }: Outcome,
  visit: (record: A, held: Held<A>, why: string) => void
): void => {
  const whys = new Map(refused.map(({ position, why }) => [position, why]))
  const positions = Array.from(whys.keys()).sort((a, b) => a - b)
  eachHeld(batch, positions, (position, record, held) => visit(record, held, whys.get(position) ?? ""))
}

/** Counts everything that has a place as given up. */
export const countGivenUp = (account: Account): void => {
  account.discarded += account.pending + account.inFlight + account.refused
  account.pending = 0
  account.inFlight = 0
  account.refused = 0
  account.bytes = 0
}
