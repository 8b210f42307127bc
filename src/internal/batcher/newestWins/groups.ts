import * as HashMap from "effect/HashMap"
import * as MutableList from "effect/MutableList"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import { Group } from "./group.ts"

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
  private readonly order = MutableList.make<Group<A>>()
  private sweepAt = maxUnswept

  get(id: string): Group<A> | undefined {
    return Option.getOrUndefined(HashMap.get(Ref.getUnsafe(this.byId), id))
  }

  getOrAdd(id: string): Group<A> {
    const known = this.get(id)
    if (known !== undefined) return known
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

  private sweep(): void {
    const kept = HashMap.beginMutation(HashMap.empty<string, Group<A>>())
    for (const group of this.values()) if (!group.isIdle) HashMap.set(kept, group.id, group)
    this.byId.ref.current = kept
    this.sweepAt = Math.max(maxUnswept, 2 * HashMap.size(kept))
  }
}
