import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import { Group } from "./group.ts"
import { Recent } from "./recent.ts"

/** Up to this many groups are kept without asking whether they are idle. */
const maxUnswept = 10_000

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
  // The order is a list through the groups themselves: it is touched for every report.
  private first: Group<A> | undefined
  private last: Group<A> | undefined
  private readonly recent = new Recent<A>()
  private sweepAt = maxUnswept

  private get size(): number {
    return HashMap.size(Ref.getUnsafe(this.byId))
  }

  get(id: string): Group<A> | undefined {
    return Option.getOrUndefined(HashMap.get(Ref.getUnsafe(this.byId), id))
  }

  getOrAdd(id: string): Group<A> {
    const recent = this.recent.get(id)
    if (recent !== undefined) return recent
    const group = this.get(id) ?? this.add(id)
    this.recent.set(group)
    return group
  }

  private add(id: string): Group<A> {
    const group = new Group<A>(id)
    if (this.size >= this.sweepAt) this.sweep()
    HashMap.set(Ref.getUnsafe(this.byId), id, group)
    if (this.size > this.recent.capacity) this.recent.reserve(2 * this.size)
    return group
  }

  values(): Iterable<Group<A>> {
    return HashMap.values(Ref.getUnsafe(this.byId))
  }

  /** Puts a group that has begun to wait behind the others. */
  enqueue(group: Group<A>): void {
    if (group.isOrdered) return
    group.isOrdered = true
    group.next = undefined
    if (this.last === undefined) this.first = group
    else this.last.next = group
    this.last = group
  }

  /** Puts a group whose turn is not over back in front of the others. */
  putBack(group: Group<A>): void {
    group.isOrdered = true
    group.next = this.first
    this.first = group
    this.last ??= group
  }

  /** The group that has waited longest. */
  dequeue(): Group<A> | undefined {
    const group = this.first
    if (group === undefined) return undefined
    this.first = group.next
    if (this.first === undefined) this.last = undefined
    group.isOrdered = false
    return group
  }

  clear(): void {
    this.byId.ref.current = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    this.recent.reserve(0)
    this.first = undefined
    this.last = undefined
  }

  private sweep(): void {
    const kept = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    for (const group of this.values()) if (!group.isIdle) HashMap.set(kept, group.id, group)
    this.byId.ref.current = kept
    this.recent.reserve(2 * this.size)
    this.sweepAt = Math.max(maxUnswept, 2 * this.size)
  }
}
