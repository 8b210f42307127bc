import * as HashMap from "effect/HashMap"
import * as Ref from "effect/Ref"
import { Group } from "./group.ts"

/** Up to this many groups are kept without asking whether they are idle: about 40 MB, and 15 ms to sweep. */
const maxUnswept = 100_000

/**
 * The groups by id, and those that wait in the order in which they began to.
 *
 * A group stays in the map when its rows have been taken: most report again,
 * and adding an entry anew costs as much as folding a report of ten records. The
 * idle ones are swept out when there are 100,000 groups, or twice as many as the
 * last sweep left.
 */
export class Groups<A> {
  // Transient, so that an entry is added in place.
  private readonly byId = Ref.makeUnsafe(HashMap.beginMutation(HashMap.empty<string, Group<A>>()))
  // The order is a list through the groups themselves: it is touched for every report.
  private first: Group<A> | undefined
  private last: Group<A> | undefined
  // In front of it, because a text keeps its hash for a native Map: the HashMap hashes 36 characters at each look.
  private index = new Map<string, Group<A>>()
  private sweepAt = maxUnswept

  get(id: string): Group<A> | undefined {
    return this.index.get(id)
  }

  getOrAdd(id: string): Group<A> {
    return this.index.get(id) ?? this.add(id)
  }

  private add(id: string): Group<A> {
    const group = new Group<A>(id)
    if (this.index.size >= this.sweepAt) this.sweep()
    this.insert(group)
    return group
  }

  private insert(group: Group<A>): void {
    HashMap.set(Ref.getUnsafe(this.byId), group.id, group)
    this.index.set(group.id, group)
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
    // It may stay for long, and must not keep those that were behind it.
    group.next = undefined
    return group
  }

  clear(): void {
    this.byId.ref.current = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    this.index.clear()
    this.first = undefined
    this.last = undefined
  }

  private sweep(): void {
    const kept = Array.from(this.index.values()).filter(({ isIdle }) => !isIdle)
    this.byId.ref.current = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    this.index = new Map()
    for (const group of kept) this.insert(group)
    this.sweepAt = Math.max(maxUnswept, 2 * kept.length)
  }
}
