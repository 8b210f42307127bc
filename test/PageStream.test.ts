/** What the page makes of the text of a stream, however it is cut, and of a fleet. No browser needed. */
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { AgentId } from "../src/AgentId.ts"
import { Fleet, lateAfter, silentAfter, stateOf } from "../src/app/page/Fleet.ts"
import { type Memory, makeParser } from "../src/app/page/ServerSentEvents.ts"
import type { Line } from "../src/app/page/Wire.ts"

const nothing = (): Memory => ({ lastEventId: undefined, retry: undefined })

const Events = Schema.Array(
  Schema.Struct({
    name: Schema.Literals(["facts", "changes", "message"]),
    data: Schema.Array(Schema.String),
    comment: Schema.Boolean
  })
)

const lineEnds = ["\n", "\r\n"] as const

describe("a stream of events", () => {
  it.prop(
    "is read the same wherever it is cut",
    {
      events: Events,
      sizes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9 }))),
      lineEnd: Schema.Literals(lineEnds)
    },
    ({ events, lineEnd, sizes }) => {
      const text = events
        .flatMap(({ comment, data, name }, index) => [
          ...(comment ? [": alive", ""] : []),
          `event: ${name}`,
          `id: ${index}`,
          `data: ${JSON.stringify(data)}`,
          ""
        ])
        .map((line) => line + lineEnd)
        .join("")
      const memory = nothing()
      const parse = makeParser(memory)
      const read: Array<unknown> = []
      for (let at = 0, turn = 0; at < text.length; turn++) {
        const size = sizes[turn % sizes.length] ?? 5
        read.push(...parse(text.slice(at, at + size)))
        at += size
      }
      assert.deepStrictEqual(
        read,
        events.map(({ data, name }) => ({ name, data: JSON.stringify(data) }))
      )
      assert.strictEqual(memory.lastEventId, events.length === 0 ? undefined : String(events.length - 1))
    }
  )

  it("joins the lines of one event, and gives none without data", () => {
    const parse = makeParser(nothing())
    assert.deepStrictEqual(parse("data: a\ndata:b\ndata\n\nevent: empty\n\n"), [
      { name: "message", data: "a\nb\n" }
    ])
  })

  it("resumes after the last event that came whole", () => {
    const memory = nothing()
    const parse = makeParser(memory)
    parse("id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert.strictEqual(memory.lastEventId, "1")
    parse("\n")
    assert.strictEqual(memory.lastEventId, "2")
  })

  it("takes the pause that the server asks for, if it is one", () => {
    const memory = nothing()
    const parse = makeParser(memory)
    parse("retry: soon\n\n")
    assert.isUndefined(memory.retry)
    parse("retry: 1500\n\n")
    assert.strictEqual(memory.retry, 1_500)
  })
})

const idOf = (number: number) => AgentId.make(`0198a1b2-0000-7000-8000-00000000000${number}`)

const line = (number: number, age: number, errors = 0): Line => ({
  id: idOf(number),
  facts: 3,
  errors,
  lastCollectedAt: 1_000_000 - age
})

const now = 1_000_000

describe("a fleet", () => {
  it("has agents that are fresh, late, silent, or have errors while they are heard", () => {
    assert.strictEqual(stateOf(line(1, lateAfter - 1), now), "fresh")
    assert.strictEqual(stateOf(line(1, lateAfter), now), "late")
    assert.strictEqual(stateOf(line(1, lateAfter, 1), now), "errors")
    assert.strictEqual(stateOf(line(1, silentAfter, 1), now), "silent")
  })

  it("shows the old snapshot until the new one is whole", () => {
    const fleet = new Fleet()
    fleet.snapshot({ agents: [line(1, 0)], first: true, last: true })
    fleet.snapshot({ agents: [line(2, 0)], first: true, last: false })
    assert.deepStrictEqual([...fleet.lines.keys()], [idOf(1)])
    fleet.snapshot({ agents: [line(3, 0)], first: false, last: true })
    assert.deepStrictEqual([...fleet.lines.keys()], [idOf(2), idOf(3)])
    fleet.changes({ agents: [line(4, 0)], removed: [idOf(2)] })
    assert.deepStrictEqual([...fleet.lines.keys()], [idOf(3), idOf(4)])
  })

  it("is sorted by what was asked for, and by id where that is the same", () => {
    const fleet = new Fleet()
    const agents = [line(4, 0), line(3, 5), line(2, 40_000), line(5, 200_000), line(1, 5, 1), line(6, 5)]
    fleet.snapshot({ agents, first: true, last: true })
    const order = (sort: "id" | "attention" | "newest" | "oldest") =>
      fleet.select({ search: "", state: "all", sort }, now).map(({ id }) => Number(id.at(-1)))
    assert.deepStrictEqual(order("id"), [1, 2, 3, 4, 5, 6])
    assert.deepStrictEqual(order("attention"), [1, 5, 2, 3, 4, 6])
    assert.deepStrictEqual(order("newest"), [4, 1, 3, 6, 2, 5])
    assert.deepStrictEqual(order("oldest"), [5, 2, 1, 3, 6, 4])
    assert.deepStrictEqual(fleet.counts(now), { all: 6, errors: 1, silent: 1, late: 1, fresh: 3 })
  })
})
