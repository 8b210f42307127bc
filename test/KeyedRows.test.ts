import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { KeyedRows } from "../src/internal/keyedRows.ts"

const Step = Schema.Union([
  Schema.TaggedStruct("Put", {
    key: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 })),
    position: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 }))
  }),
  Schema.TaggedStruct("Take", { count: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 30 })) })
])

describe("KeyedRows", () => {
  it.prop(
    "holds what a Map holds, in the same order, however many keys there are and wherever they are expected",
    [Schema.Array(Step)],
    ([steps]) => {
      const keyed = new KeyedRows<{ readonly fact: { readonly key: string } }>()
      const map = new Map<string, { readonly fact: { readonly key: string } }>()
      // More keys than are scanned, so that both ways of finding one are gone.
      for (let key = 0; key < 20; key++) put(`${key}`, key)
      function put(key: string, position: number) {
        const row = keyed.get(key, position)
        assert.strictEqual(row, map.get(key))
        if (row !== undefined) return
        const added = { fact: { key } }
        keyed.add(added)
        map.set(key, added)
      }
      for (const step of steps) {
        if (step._tag === "Put") put(`${step.key}`, step.position)
        else {
          const taken = keyed.take(step.count)
          assert.deepStrictEqual(taken, Array.from(map.values()).slice(0, step.count))
          for (const row of taken) map.delete(row.fact.key)
        }
        assert.deepStrictEqual(keyed.rows, Array.from(map.values()))
      }
    }
  )
})
