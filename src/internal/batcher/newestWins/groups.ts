import * as HashMap from "effect/HashMap"
import * as MutableList from "effect/MutableList"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import { Group } from "./group.ts"

/** Up to this many groups are kept without asking whether they are idle. */
const maxUnswept = 10_000

/** Slots of the groups that were asked for last; a power of two. */
const recentSlots = 4_096

/** A slot by a few characters from both ends, which differ in UUIDs as in numbered names. */
const slotOf = (id: string): number => {
  const end = id.length - 1
  const first = (id.charCodeAt(0) << 9) ^ (id.charCodeAt(1) << 5) ^ id.charCodeAt(2)
  const last = (id.charCodeAt(end) << 7) ^ (id.charCodeAt(end - 1) << 3) ^ id.charCodeAt(end - 2)
  return (first ^ last) & (recentSlots - 1)
}

/**
 * The groups by id, and those that wait in the order in which they began to.
 *
 * A group stays in the map when its rows have been taken: most report again,
 * and adding an entry anew would cost more than all else that is done for a
 * report. The idle ones are swept out when there are twice as many groups as
 * the last sweep left.
 */
export class Groups<A> {
  // Transient, so that an entry is added in place.
  private readonly byId = Ref.makeUnsafe(HashMap.beginMutation(HashMap.empty<string, Group<A>>()))
  private readonly order = MutableList.make<Group<A>>()
  private sweepAt = maxUnswept
  // Hashing an id of 36 characters costs as much as folding its report.
  private readonly recent = new Array<Group<A> | undefined>(recentSlots).fill(undefined)

  get(id: string): Group<A> | undefined {
    return Option.getOrUndefined(HashMap.get(Ref.getUnsafe(this.byId), id))
  }

  getOrAdd(id: string): Group<A> {
    const slot = slotOf(id)
    const recent = this.recent[slot]
    if (recent !== undefined && recent.id === id) return recent
    const group = this.get(id) ?? this.add(id)
    this.recent[slot] = group
    return group
  }

  private add(id: string): Group<A> {
    const group = new Group<A>(id)
    if (HashMap.size(Ref.getUnsafe(this.byId)) >= this.sweepAt) this.sweep()
    HashMap.set(Ref.getUnsafe(this.byId), id, group)
    return group
  }

  values(): Iterable<Group<A>> {
    return HashMap.values(Ref.getUnsafe(this.byId))
  }

  /** Puts a group that has begun to wait behind the others. */
  enqueue(group: Group<A>): void {
    if (group.isOrdered) return
    group.isOrdered = true
    MutableList.append(this.order, group)
  }

  /** Puts a group whose turn is not over back in front of the others. */
  putBack(group: Group<A>): void {
    group.isOrdered = true
    MutableList.prepend(this.order, group)
  }

  /** The group that has waited longest. */
  dequeue(): Group<A> | undefined {
    const group = MutableList.take(this.order)
    if (group === MutableList.Empty) return undefined
    group.isOrdered = false
    return group
  }

  clear(): void {
    this.byId.ref.current = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    this.recent.fill(undefined)
    MutableList.clear(this.order)
  }

  private sweep(): void {
    const kept = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    for (const group of this.values()) if (!group.isIdle) HashMap.set(kept, group.id, group)
    this.byId.ref.current = kept
    this.recent.fill(undefined)
    this.sweepAt = Math.max(maxUnswept, 2 * HashMap.size(kept))
  }
}
