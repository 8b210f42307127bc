import type { Held } from "../held.ts"
import { countGivenUp } from "../settling.ts"
import { merge } from "./fold.ts"
import type { Group } from "./group.ts"
import { giveUpRefused } from "./refused.ts"
import { takeRestingOut } from "./resting.ts"
import type { State } from "./state.ts"

/** Gives up what waits of a group. */
export const forget = <A>(state: State<A>, id: string): void => {
  const { account } = state.environment
  for (const batch of state.inFlight) {
    if (batch.held.some(({ group }) => group === id)) batch.forgotten.add(id)
  }
  const group = state.groups.get(id)
  if (group === undefined) return
  // Then all of it waits in one place.
  forgetWritten(state, id)
  if (group.waiting !== undefined) {
    account.pending -= group.waiting.records.length
    account.discarded += group.waiting.records.length
    account.bytes -= group.waiting.bytes
    group.waiting = undefined
  }
  for (const row of Array.from(group.refused?.values() ?? [])) giveUpRefused(state, row, "forgotten")
}

/** Others have written rows of this group, or of any: what the store holds is not known any more. */
export const forgetWritten = <A>(state: State<A>, id: string | undefined): void => {
  for (const batch of state.inFlight) {
    for (const { group } of batch.held) if (id === undefined || group === id) batch.overtaken.add(group)
  }
  const groups = id === undefined ? Array.from(state.groups.values()) : [state.groups.get(id)]
  for (const group of groups) {
    if (group === undefined) continue
    state.rememberedCount -= group.written?.size ?? 0
    group.written = undefined
    for (const held of [group.resting, group.woken]) if (held !== undefined) makeNews(state, group, held)
  }
}

/** What the store holds may be something else by now: these records wait as any others, and are announced. */
const makeNews = <A>(state: State<A>, group: Group<A>, held: Held<A>): void => {
  const { account } = state.environment
  const { records, since, spans } = held
  takeRestingOut(state, group, held)
  account.pending -= records.length
  account.bytes -= held.bytes
  records.forEach((record, likely) => {
    merge(state, group, { record, likely, since, spans, isLater: true })
  })
}

/** Gives up everything: the batcher has closed. */
export const giveUp = <A>(state: State<A>): void => {
  const { account, discards } = state.environment
  if (discards) tellAll(state)
  state.clear()
  countGivenUp(account)
}

const tellAll = <A>(state: State<A>): void => {
  const tell = (held: Held<A> | undefined): void => {
    for (const record of held?.records ?? []) state.tell(held?.group ?? "", record, "unwritten", "")
  }
  for (const batch of state.inFlight) batch.held.forEach(tell)
  for (const { id, refused, resting, waiting, woken } of state.groups.values()) {
    for (const held of [waiting, resting, woken]) tell(held)
    for (const { record, why } of refused?.values() ?? []) {
      if (record !== undefined) state.tell(id, record, "refused", why)
    }
  }
}

/** When the longest waiting row was added, those in a write among them. Those that rest wait on purpose. */
export const oldest = <A>(state: State<A>): number | undefined => {
  let oldest = Number.POSITIVE_INFINITY
  for (const { waiting } of state.groups.values()) {
    if (waiting !== undefined) oldest = Math.min(oldest, waiting.since)
  }
  for (const batch of state.inFlight) {
    for (const { quiet, since } of batch.held) if (!quiet) oldest = Math.min(oldest, since)
  }
  for (const { origin } of state.refused.values()) oldest = Math.min(oldest, origin.since)
  return oldest === Number.POSITIVE_INFINITY ? undefined : oldest
}
