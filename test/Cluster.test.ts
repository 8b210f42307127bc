import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Audit from "../scripts/cluster/audit.ts"
import { run } from "../scripts/cluster/cluster.ts"
import { agentIdOf, type Fleet, valueOf } from "../scripts/cluster/fleet.ts"
import type { Watcher } from "../scripts/cluster/watcher.ts"

const [one, two] = [agentIdOf(1), agentIdOf(2)]

const row = (agentId: string, at: number, of = at): Audit.Row => ({
  agentId,
  key: "cpu",
  value: valueOf(agentId, "cpu", of),
  at
})

const owing = (owed: ReadonlyArray<readonly [string, number]>): Fleet => ({
  run: () => Promise.resolve(),
  accepted: () => 0,
  owed: () => new Map(owed)
})

const showing = (...rows: ReadonlyArray<Audit.Row>): Watcher => ({
  replica: "replica 1",
  agentIds: new Set([one, two]),
  shown: () => new Map(rows.map(({ agentId, key, value }) => [agentId, new Map([[key, value]])])),
  connects: () => 1,
  close: () => Promise.resolve()
})

describe("Cluster", () => {
  it("the audit finds what is lost, what nobody reported, and what a watcher does not show", () => {
    const table = [row(one, 5), row(two, 7)]
    const fleet = owing([
      [one, 5],
      [two, 6]
    ])
    assert.deepStrictEqual(Audit.lost(fleet, table), [])
    assert.strictEqual(Audit.lost(fleet, [row(one, 4), row(two, 7)]).length, 1)
    assert.strictEqual(Audit.lost(fleet, [row(two, 7)]).length, 1)
    assert.strictEqual(Audit.lost(fleet, [row(one, 5, 4), row(two, 7)]).length, 1)
    assert.deepStrictEqual(Audit.stale(showing(...table), table), [])
    assert.strictEqual(Audit.stale(showing(row(one, 4), row(two, 7)), table).length, 1)
    assert.strictEqual(Audit.stale(showing(row(two, 7)), table).length, 1)
  })

  it("loses nothing that was accepted and shows everywhere what the table holds", async () => {
    const options = { seed: 1, replicas: 2, agents: 20, seconds: 2, rounds: 1 }
    const verdict = await Effect.runPromise(run({ ...options, say: () => {} }))
    assert.deepStrictEqual(verdict.faults, [])
    assert.isAbove(verdict.accepted, 0)
    // Each replica's two watchers saw their stream open.
    assert.isAtLeast(verdict.connects, 4)
  }, 90_000)
})
