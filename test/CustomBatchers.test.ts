/** The generic engine with records of an application's own, through good days and bad ones. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Tracer from "effect/Tracer"
import * as TestClock from "effect/testing/TestClock"
import * as Batcher from "../src/Batcher.ts"
import * as Store from "../src/Store.ts"
import { run, warnings } from "./support/Fakes.ts"

// As in the docstring of `Batcher`: an append-only audit log, and the newest state of each device.

interface Entry {
  readonly user: string
  readonly action: string
}

interface State {
  readonly device: string
  readonly name: string
  readonly value: number
  readonly at: number
}

/** A store of an application's own: it may be away, and a constraint refuses what is `bad`. */
const makeOwnStore = () => {
  const own = {
    isDown: false,
    /** What a constraint refuses; an operator may change that. */
    refuses: (_: unknown): boolean => false,
    statements: 0,
    write:
      <A>(put: (record: A) => void) =>
      (records: ReadonlyArray<A>): Effect.Effect<void, unknown> =>
        Effect.suspend((): Effect.Effect<void, unknown> => {
          own.statements += 1
          if (own.isDown) return Effect.fail({ reason: { _tag: "Unavailable" } })
          if (records.some(own.refuses)) return Effect.fail(new Error("violates check constraint"))
          return Effect.sync(() => records.forEach(put))
        })
  }
  return own
}

const startAuditLog = Effect.fnUntraced(function* (options?: Batcher.Options) {
  const table: Array<Entry> = []
  const own = makeOwnStore()
  const running = yield* run(
    "auditlog",
    Batcher.make<Entry>({
      name: "AuditLog",
      options: { interval: "1 second", ...options },
      accumulate: Batcher.appendOnly(),
      write: own.write((entry) => table.push(entry))
    })
  )
  return { ...running, own, table }
})

const startDevices = Effect.fnUntraced(function* (
  options?: Batcher.Options,
  more?: Partial<Batcher.Definition<State>>
) {
  const table = new Map<string, State>()
  const own = makeOwnStore()
  const running = yield* run(
    "devicestates",
    Batcher.make<State>({
      name: "DeviceStates",
      options: { interval: "1 second", ...options },
      accumulate: Batcher.newestWins({ group: (s) => s.device, key: (s) => s.name, time: (s) => s.at }),
      write: own.write((state) => table.set(`${state.device} ${state.name}`, state)),
      ...more
    })
  )
  return { ...running, own, table }
})

const state = (device: string, value: number, at: number, name = "celsius"): State => ({
  device,
  name,
  value,
  at
})

const down = (own: { isDown: boolean }, isDown: boolean) =>
  Effect.sync(() => {
    own.isDown = isDown
  })

describe("An append-only audit log", () => {
  it.effect(
    "keeps every entry through an outage, a refused row and a shutdown, and their order where none is refused",
    () =>
      Effect.gen(function* () {
        const { assertAccount, batcher, closeInTime, logs, own, table } = yield* startAuditLog({
          maxBatchSize: 10
        })
        const entry = (number: number) => ({ user: "ada", action: `${number}` })
        for (let number = 0; number < 15; number++) yield* batcher.add(entry(number))
        yield* TestClock.adjust("1 second")
        yield* assertAccount({ written: 15 })

        yield* down(own, true)
        for (let number = 15; number < 40; number++) yield* batcher.add(entry(number))
        yield* TestClock.adjust("30 seconds")
        yield* assertAccount({ written: 15, pending: 25, discarded: 0 })
        assert.strictEqual((yield* batcher.status)._tag, "Unavailable")
        yield* down(own, false)
        own.refuses = (one) => (one as Entry).action === "bad"
        yield* TestClock.adjust("5 seconds")
        yield* assertAccount({ written: 40, pending: 0 })

        yield* batcher.add({ user: "eve", action: "bad" })
        for (let number = 40; number < 45; number++) yield* batcher.add(entry(number))
        yield* TestClock.adjust("2 seconds")
        yield* assertAccount({ written: 45, refused: 1 })
        assert.isTrue(warnings(logs.lines).some(({ message }) => message.includes("refused 1 rows")))
        own.refuses = () => false
        yield* TestClock.adjust("10 seconds")
        yield* assertAccount({ written: 46, refused: 0 })

        yield* down(own, true)
        for (let number = 45; number < 60; number++) yield* batcher.add(entry(number))
        const closing = yield* Effect.forkChild(closeInTime, { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        yield* down(own, false)
        yield* Fiber.join(closing)
        yield* assertAccount({ written: 61, discarded: 0, dropped: 0 })
        const actions = table.filter(({ user }) => user === "ada").map(({ action }) => Number(action))
        const inOrder = Array.from({ length: 60 }, (_, number) => number)
        const [from, to] = [40, 45]
        assert.deepStrictEqual(actions.toSpliced(from, to - from), inOrder.toSpliced(from, to - from))
        // Those of the batch in which one was refused were searched.
        assert.sameMembers(actions.slice(from, to), inOrder.slice(from, to))
      })
  )

  it.effect("gives up none of them for one that finds no room all the same", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, own } = yield* startAuditLog({ maxPendingBytes: 1_000 })
      yield* down(own, true)
      for (let number = 0; number < 10; number++) batcher.addUnsafe({ user: "ada", action: `${number}` })
      assert.isFalse(batcher.addUnsafe({ user: "ada", action: "x".repeat(1_000) }))
      yield* assertAccount({ dropped: 1, discarded: 0 })
    })
  )

  it.effect("has nothing left to forget after a close that lost something", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, own } = yield* startAuditLog()
      own.refuses = (entry) => (entry as Entry).action === "bad"
      for (const action of ["good", "bad"]) yield* batcher.add({ user: "ada", action })
      yield* batcher.flush
      yield* down(own, true)
      yield* batcher.add({ user: "ada", action: "late" })
      yield* closeInTime
      yield* batcher.forget("")
      yield* assertAccount({ written: 1, pending: 0, refused: 0, discarded: 2 })
    })
  )

  it.effect("gives up the oldest entries where there is no room", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, own, table } = yield* startAuditLog({ maxBatchSize: 5, maxPending: 10 })
      yield* down(own, true)
      for (let number = 0; number < 30; number++) {
        assert.isTrue(batcher.addUnsafe({ user: "ada", action: `${number}` }))
        yield* TestClock.adjust("100 millis")
      }
      yield* assertAccount({ pending: 10, discarded: 20 })
      yield* down(own, false)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(
        table.map(({ action }) => Number(action)),
        Array.from({ length: 10 }, (_, number) => 20 + number)
      )
    })
  )
})

describe("The newest state of each device", () => {
  it.effect("is kept through an outage, a refused row and a shutdown", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher, closeInTime, own, table } = yield* startDevices({ maxBatchSize: 10 })
      yield* down(own, true)
      for (let at = 0; at < 20; at++) {
        for (let device = 0; device < 20; device++) yield* batcher.add(state(`d${device}`, at, at))
        yield* TestClock.adjust("1 second")
      }
      yield* assertAccount({ pending: 20, superseded: 380 })
      yield* down(own, false)
      own.refuses = (one) => (one as State).device === "d7"
      yield* TestClock.adjust("5 seconds")
      yield* assertAccount({ written: 19, refused: 1 })
      for (const { value } of table.values()) assert.strictEqual(value, 19)
      yield* batcher.add(state("d7", 20, 20))
      own.refuses = () => false
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(table.get("d7 celsius")?.value, 20)
      for (let device = 0; device < 20; device++) yield* batcher.add(state(`d${device}`, 21, 21))
      yield* closeInTime
      yield* assertAccount({ written: 40, pending: 0, discarded: 0 })
      for (const { value } of table.values()) assert.strictEqual(value, 21)
    })
  )

  it.effect(
    "is flushed at capacity, on schedule, on demand and at shutdown, and counted under its own name",
    () =>
      Effect.gen(function* () {
        const { batcher, close, metrics, own, scrape, valueOf } = yield* startDevices({ maxBatchSize: 3 })
        for (const device of ["a", "b", "c", "d"]) yield* batcher.add(state(device, 0, 0))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(own.statements, 2)
        for (const device of ["a", "b"]) yield* batcher.add(state(device, 1, 1))
        assert.deepInclude(yield* batcher.flush, { written: 2 })
        yield* batcher.add(state("a", 2, 2))
        yield* close
        assert.strictEqual(own.statements, 4)
        for (const reason of ["capacity", "scheduled", "manual", "shutdown"]) {
          assert.strictEqual((yield* valueOf(Metric.withAttributes(metrics.batches, { reason }))).count, 1)
        }
        assert.include(yield* scrape, "agentapi_devicestates_flushed_total 7")
      })
  )

  it.effect("may have a key that is no text, as JavaScript sends it", () =>
    Effect.gen(function* () {
      const { batcher, table } = yield* startDevices()
      const named = (name: unknown, at: number) => state("boiler", at, at, name as string)
      for (const [name, at] of [
        [1, 1],
        [2, 1],
        [2, 2],
        [1, 2]
      ] as const) {
        yield* batcher.add(named(name, at))
      }
      assert.strictEqual((yield* batcher.flush).written, 2)
      assert.deepStrictEqual(
        [...table.values()].map(({ value }) => value),
        [2, 2]
      )
    })
  )

  it.effect("has groups of its own: they are announced and forgotten together", () =>
    Effect.gen(function* () {
      const announced: Array<ReadonlyArray<string>> = []
      const { assertAccount, batcher } = yield* startDevices(undefined, {
        announce: {
          channel: "devices",
          encode: (devices) => devices.map((device) => `changed ${device}`),
          publish: (payloads) => Effect.sync(() => void announced.push(payloads))
        }
      })
      for (const [device, name] of [
        ["a", "x"],
        ["b", "x"],
        ["a", "y"]
      ] as const) {
        yield* batcher.add(state(device, 0, 0, name))
      }
      yield* batcher.forget("b")
      yield* batcher.flush
      assert.deepStrictEqual(announced, [["changed a"]])
      yield* assertAccount({ written: 2, discarded: 1 })
    })
  )

  it.effect("are announced once each, however many of their records a batch holds", () =>
    Effect.gen(function* () {
      const announced: Array<ReadonlyArray<string>> = []
      const batcher = yield* Batcher.make<Entry>({
        name: "AuditLog",
        accumulate: Batcher.appendOnly({ group: (entry) => entry.user }),
        write: () => Effect.void,
        announce: {
          channel: "users",
          encode: (users) => users,
          publish: (payloads) => Effect.sync(() => void announced.push(payloads))
        }
      })
      for (const user of ["ada", "bob", "ada"]) yield* batcher.add({ user, action: "sign in" })
      yield* batcher.flush
      assert.deepStrictEqual(announced, [["ada", "bob"]])
    })
  )

  it.effect("may say what became of the rows itself", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher } = yield* startDevices(undefined, {
        write: (records, groups) =>
          Effect.succeed({
            ...Store.allChanged(records.length - 1),
            refused: [{ position: groups.indexOf("b"), why: "b is broken" }]
          })
      })
      for (const device of ["a", "b", "c"]) yield* batcher.add(state(device, 0, 0))
      yield* batcher.flush
      yield* assertAccount({ written: 2, refused: 1 })
    })
  )
})

describe("A definition", () => {
  const definition: Batcher.Definition<State> = {
    name: "Devices",
    accumulate: Batcher.newestWins({ group: (s) => s.device, key: (s) => s.name, time: (s) => s.at }),
    write: () => Effect.void
  }
  const { accumulate } = definition
  const nonsense: ReadonlyArray<readonly [option: string, broken: unknown]> = [
    ["name", { ...definition, name: "" }],
    ["name", { ...definition, name: undefined }],
    ["kind", { ...definition, kind: "my devices" }],
    ["write", { ...definition, write: undefined }],
    ["onDiscarded", { ...definition, onDiscarded: "no function" }],
    ["accumulate", { ...definition, accumulate: undefined }],
    ["accumulate", { ...definition, accumulate: {} }],
    ["group", { ...definition, accumulate: { ...accumulate, group: "device" } }],
    ["key", { ...definition, accumulate: { ...accumulate, key: undefined } }],
    ["bytes", { ...definition, accumulate: { ...accumulate, bytes: 8 } }],
    ["flushAtShare", { ...definition, defaults: { flushAtShare: 0 } }],
    ["flushAtShare", { ...definition, defaults: { flushAtShare: 1.5 } }],
    ["maxBatchSize", { ...definition, defaults: { maxBatchSize: 0 } }],
    ["unchanged", { ...definition, options: { unchanged: "1 minute" } }]
  ]
  it.effect.each(nonsense)("that no batcher can run with fails when it is made: %s %o", ([option, broken]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped(Batcher.make(broken as Batcher.Definition<State>)))
      assert.deepInclude(error, { _tag: "InvalidOptionError", option })
    })
  )
})

describe("A bug of the application's", () => {
  it.effect("says nothing in errors without a message: the refused record waits on all the same", () =>
    Effect.gen(function* () {
      const silent = Object.assign(new Error(), { message: undefined })
      const { assertAccount, batcher } = yield* startDevices(undefined, {
        write: (states) => (states.some(({ value }) => value < 0) ? Effect.fail(silent) : Effect.void)
      })
      yield* batcher.add({ device: "a", name: "cpu", value: -1, at: 1 })
      yield* batcher.add({ device: "b", name: "cpu", value: 1, at: 1 })
      yield* TestClock.adjust("10 seconds")
      yield* assertAccount({ offered: 2, written: 1, refused: 1, inFlight: 0 })
    })
  )

  it.effect("is not seen in errors of a shape of their own: they cost the refused record only", () =>
    Effect.gen(function* () {
      const { assertAccount, batcher } = yield* startDevices(undefined, {
        write: (states) =>
          states.some(({ name }) => name === "bad")
            ? Effect.fail({ kind: "constraint", error: "of the application's own" })
            : Effect.void
      })
      yield* batcher.add({ device: "a", name: "bad", value: 1, at: 1 })
      yield* batcher.add({ device: "b", name: "good", value: 1, at: 1 })
      yield* batcher.flush
      yield* assertAccount({ refused: 1, written: 1 })
    })
  )

  for (const throwing of ["group", "key", "time", "write", "encode"] as const) {
    it.effect(`in ${throwing} ends nothing, and is over when it is fixed`, () =>
      Effect.gen(function* () {
        let isBroken = true
        const bug =
          <Args extends ReadonlyArray<unknown>, A>(name: string, correct: (...args: Args) => A) =>
          (...args: Args): A => {
            if (isBroken && name === throwing) throw new TypeError("a bug")
            return correct(...args)
          }
        const written = new Map<string, State>()
        const { assertAccount, batcher, until } = yield* startDevices(
          { maxBatchSize: 3 },
          {
            write: bug("write", (states: ReadonlyArray<State>) =>
              Effect.sync(() => {
                for (const one of states) written.set(`${one.device} ${one.name}`, one)
              })
            ),
            accumulate: Batcher.newestWins({
              group: bug("group", (s: State) => s.device),
              key: bug("key", (s: State) => s.name),
              time: bug("time", (s: State) => s.at)
            }),
            announce: {
              channel: "devices",
              encode: bug("encode", (devices: ReadonlyArray<string>) => devices),
              publish: () => Effect.void
            }
          }
        )
        // Enough for a flush at capacity; then one on schedule.
        for (const device of ["a", "b", "c"]) batcher.addUnsafe(state(device, 0, 0))
        yield* TestClock.adjust("3 seconds")
        yield* until(() => true)
        isBroken = false
        for (const device of ["a", "b", "c", "d"]) batcher.addUnsafe(state(device, 1, 1))
        yield* TestClock.adjust("10 seconds")
        assert.sameMembers([...written.keys()], ["a celsius", "b celsius", "c celsius", "d celsius"])
        yield* assertAccount({ pending: 0, inFlight: 0, queued: 0 })
      })
    )
  }

  it.effect("in encode, for one group, keeps no other from being announced", () =>
    Effect.gen(function* () {
      let isBroken = true
      const announced: Array<string> = []
      const { batcher } = yield* startDevices(undefined, {
        announce: {
          channel: "devices",
          encode: (devices) => {
            if (isBroken && devices.includes("odd")) throw new TypeError("a bug")
            return devices
          },
          publish: (payloads) => Effect.sync(() => void announced.push(...payloads))
        }
      })
      for (const device of ["a", "odd", "b", "c"]) yield* batcher.add(state(device, 0, 0))
      yield* batcher.flush
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(announced, ["a", "b", "c"])
      isBroken = false
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(announced, ["a", "b", "c", "odd"])
    })
  )

  it.effect.each(["span", "attribute", "end"] as const)("in a tracer's %s costs no batch", (throwing) =>
    Effect.gen(function* () {
      const bug = () => {
        throw new TypeError("a bug")
      }
      const tracer = Tracer.make({
        span: (options) =>
          throwing === "span" ? bug() : Object.assign(new Tracer.NativeSpan(options), { [throwing]: bug })
      })
      const { assertAccount, batcher } = yield* Effect.provideService(
        startDevices(
          { maxBatchSize: 2 },
          { announce: { channel: "", encode: (ids) => ids, publish: () => Effect.void } }
        ),
        Tracer.Tracer,
        tracer
      )
      // A flush at capacity, one on schedule and one on demand.
      for (const device of ["a", "b"]) batcher.addUnsafe(state(device, 0, 0))
      batcher.addUnsafe(state("c", 0, 0))
      yield* TestClock.adjust("2 seconds")
      yield* assertAccount({ written: 3, pending: 0, inFlight: 0 })
      batcher.addUnsafe(state("d", 0, 0))
      assert.strictEqual((yield* batcher.flush).written, 1)
    })
  )

  it.effect("in write is logged as what it is, with its stack, and its rows wait until it is fixed", () =>
    Effect.gen(function* () {
      let isBroken = true
      const { assertAccount, batcher, logs } = yield* startDevices(undefined, {
        write: () => {
          if (isBroken) throw new TypeError("a bug")
          return Effect.void
        }
      })
      for (const device of ["a", "b"]) yield* batcher.add(state(device, 0, 0))
      yield* batcher.flush
      yield* assertAccount({ pending: 2, inFlight: 0 })
      const line = yield* logs.next("Error")
      assert.include(line.message, "TypeError: a bug")
      assert.include(line.message, "CustomBatchers.test.ts")
      assert.deepInclude(yield* batcher.status, { _tag: "Unavailable", error: "a bug" })
      isBroken = false
      yield* TestClock.adjust("5 seconds")
      yield* assertAccount({ written: 2 })
    })
  )
})
