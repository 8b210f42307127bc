import type { Group } from "./group.ts"

/** Slots for each group, so that nine in ten groups have one to themselves. */
const slotsPerGroup = 8
const minSlots = 1_024
const maxSlots = 65_536

/** Characters at either end of an id that choose its slot: they differ in UUIDs as in numbered names. */
const charactersLooked = 4

/**
 * The groups that were asked for last, by their ids.
 *
 * To hash an id of 36 characters and to walk the `HashMap` costs as much as to
 * fold the report of an agent; to look here costs a tenth of that.
 */
export class Recent<A> {
  private slots: Array<Group<A> | undefined> = new Array(minSlots).fill(undefined)

  get(id: string): Group<A> | undefined {
    const group = this.slots[this.slotOf(id)]
    return group !== undefined && group.id === id ? group : undefined
  }

  set(group: Group<A>): void {
    this.slots[this.slotOf(group.id)] = group
  }

  /** Makes room for so many groups; what was here is forgotten. */
  reserve(groups: number): void {
    const wanted = Math.min(maxSlots, Math.max(minSlots, slotsPerGroup * groups))
    const size = 2 ** Math.ceil(Math.log2(wanted))
    this.slots = new Array(size).fill(undefined)
  }

  /** For how many groups there is room. */
  get capacity(): number {
    return this.slots.length === maxSlots ? Number.POSITIVE_INFINITY : this.slots.length / slotsPerGroup
  }

  private slotOf(id: string): number {
    let hash = 0
    for (let i = 0; i < charactersLooked; i++) {
      // An id may be shorter, and NaN would wipe out what was looked at before.
      hash = Math.imul(hash, 31) + (id.charCodeAt(i) | 0)
      hash = Math.imul(hash, 31) + (id.charCodeAt(id.length - 1 - i) | 0)
    }
    return (hash ^ (hash >>> 14)) & (this.slots.length - 1)
  }
}
