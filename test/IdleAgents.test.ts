/** Agents that have nothing waiting are remembered, but not without bound. */
import { assert, describe, it } from "@effect/vitest"
import { Groups } from "../src/internal/batcher/newestWins/groups.ts"
import { agentIdOf } from "./support/Fakes.ts"

const bound = 100_000

describe("Agents that have nothing waiting", () => {
  it("are let go once there are too many, and those that wait stay in their order", () => {
    const groups = new Groups<object>()
    const waiting = [1, bound / 2, bound].map((n) => groups.getOrAdd(agentIdOf(n)))
    for (const group of waiting) groups.enqueue(group)
    for (let n = 1; n <= 3 * bound; n++) groups.getOrAdd(agentIdOf(n))

    assert.isAtMost(Array.from(groups.values()).length, bound + 1)
    for (const group of waiting) {
      assert.strictEqual(groups.getOrAdd(group.id), group)
      assert.strictEqual(groups.dequeue(), group)
    }
    assert.strictEqual(groups.dequeue(), undefined)
  })

  it("are none of those of which anything is known or under way", () => {
    const groups = new Groups<object>()
    const kept = ["waiting", "resting", "woken", "refused", "written", "writing"].map((what, n) =>
      Object.assign(groups.getOrAdd(agentIdOf(n)), { [what]: what === "writing" ? 1 : {} })
    )
    const idle = groups.getOrAdd(agentIdOf(10))
    for (let n = 11; n <= 2 * bound; n++) groups.getOrAdd(agentIdOf(n))
    for (const group of kept) assert.strictEqual(groups.get(group.id), group)
    assert.isUndefined(groups.get(idle.id))
  })

  it("are found as they were while there are few", () => {
    const groups = new Groups<object>()
    const first = groups.getOrAdd("a")
    for (let n = 2; n < bound; n++) groups.getOrAdd(agentIdOf(n))
    assert.strictEqual(groups.getOrAdd("a"), first)
    assert.strictEqual(groups.get("a"), first)
    assert.strictEqual(groups.get("b"), undefined)
  })
})
