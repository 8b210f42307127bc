import { type Batch, makeBatch } from "../batch.ts"
import { type Held, splitHeld } from "../held.ts"
import * as Retry from "../retry.ts"
import type { Group } from "./group.ts"
import { sift, takeRestingOut, wakeDue } from "./resting.ts"
import type { State } from "./state.ts"

/** Rows that a batch could take now. */
export const ready = <A>(state: State<A>): number => {
  wakeDue(state)
  sift(state)
  return state.environment.account.pending - state.restingCount
}

/** Moves at most `max` rows into a batch, those of the longest waiting groups first. */
export const take = <A>(state: State<A>, max: number): Batch<A> | undefined => {
  const { account } = state.environment
  wakeDue(state)
  sift(state)
  const held: Array<Held<A>> = []
  let size = takeWoken(state, max, held)
  let areGroupsDistinct = size === 0
  while (size < max) {
    const group = state.groups.dequeue()
    if (group === undefined) break
    if (group.waiting === undefined) continue
    const taken = takeFrom(state, group, group.waiting, max - size)
    held.push(taken)
    // Its turn is over, and its next one may come within the same batch.
    if (group.isOrdered && group.due === 0) areGroupsDistinct = false
    size += taken.records.length
  }
  if (size === 0) return undefined
  account.pending -= size
  account.inFlight += size
  const batch = makeBatch(held, size, { areGroupsDistinct })
  sendOff(state, batch)
  return batch
}

const sendOff = <A>(state: State<A>, batch: Batch<A>): void => {
  state.inFlight.add(batch)
  if (state.environment.unchanged === 0) return
  for (const { group } of batch.held) state.groups.getOrAdd(group).writing += 1
}

const takeWoken = <A>(state: State<A>, max: number, into: Array<Held<A>>): number => {
  let size = 0
  for (const group of state.woken) {
    if (size === max) break
    const { woken } = group
    if (woken === undefined) continue
    if (woken.records.length > max - size) {
      into.push(splitHeld(woken, max - size, state.bytesOf))
      size = max
    } else {
      takeRestingOut(state, group, woken)
      into.push(woken)
      size += woken.records.length
    }
  }
  return size
}

const takeFrom = <A>(state: State<A>, group: Group<A>, waiting: Held<A>, room: number): Held<A> => {
  const { length } = waiting.records
  if (group.due === 0 || group.due > length) group.due = length
  const count = Math.min(group.due, room)
  group.due -= count
  if (count === length) {
    group.waiting = undefined
    group.forgetIndex()
    return waiting
  }
  if (group.due > 0) state.groups.putBack(group)
  else state.groups.enqueue(group)
  return splitHeld(waiting, count, state.bytesOf)
}

/** The same of refused rows whose pause is over. */
export const takeRefused = <A>(state: State<A>, max: number): Batch<A> | undefined => {
  const batch = Retry.takeRefused(state.refused, state.environment, max)
  if (batch !== undefined) sendOff(state, batch)
  return batch
}
