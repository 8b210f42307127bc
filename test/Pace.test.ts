/** Events go to each watcher at its own pace, and to many watchers not all at once. */
import { assert, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as TestClock from "effect/testing/TestClock"
import * as Pace from "../src/app/serve/Pace.ts"
import * as Watchers from "../src/app/serve/Watchers.ts"

const intervalMs = 1_000

/** Watchers who are all told of the same changes; gives how to change, and when each was sent something. */
const makeWatchers = Effect.fnUntraced(function* (count: number, watchers = count) {
  const all = yield* Effect.forEach(
    Array.from({ length: count }, (_, n) => Watchers.phaseOf(n)),
    (phase) =>
      Effect.gen(function* () {
        const changes = yield* Queue.sliding<void>(1)
        const sent: Array<number> = []
        const pace = yield* Pace.make({ intervalMs, phase, watchers: () => watchers })
        const send = Effect.map(Clock.currentTimeMillis, (now) => void sent.push(now))
        yield* Effect.forkScoped(Effect.forever(Effect.andThen(Queue.take(changes), pace(send))))
        return { changes, sent }
      })
  )
  const change = Effect.sync(() => {
    for (const { changes } of all) Queue.offerUnsafe(changes, undefined)
  })
  return { change, sent: all.map(({ sent }) => sent) }
})

/** The most events within any so many milliseconds. */
const crowd = (times: ReadonlyArray<number>, millis: number): number =>
  Math.max(...times.map((time) => times.filter((other) => other >= time && other < time + millis).length))

it.effect("the first event at once, whoever else is there", () =>
  Effect.gen(function* () {
    const { change, sent } = yield* makeWatchers(50, 5_000)
    yield* change
    yield* TestClock.adjust(0)
    assert.deepStrictEqual(new Set(sent.flat()), new Set([0]))
    assert.lengthOf(sent.flat(), 50)
  }).pipe(Effect.scoped)
)

it.effect("a rare change reaches thousands one after the other, within an interval", () =>
  Effect.gen(function* () {
    const { change, sent } = yield* makeWatchers(200, 5_000)
    yield* change
    yield* TestClock.adjust(5_000)
    yield* change
    yield* TestClock.adjust(intervalMs)
    const times = sent.map(([, second]) => second ?? Number.NaN)
    for (const time of times) assert.isTrue(time >= 5_000 && time <= 5_000 + intervalMs, `${time}`)
    // A tenth of them each tenth of the time, give or take.
    assert.isAtMost(crowd(times, 100), 2 * 20)
  }).pipe(Effect.scoped)
)

it.effect("a few are told at once", () =>
  Effect.gen(function* () {
    const { change, sent } = yield* makeWatchers(20)
    yield* change
    yield* TestClock.adjust(5_000)
    yield* change
    yield* TestClock.adjust(10)
    assert.isTrue(sent.every(({ length }) => length === 2))
  }).pipe(Effect.scoped)
)

it.effect("steady changes: once an interval each, no sooner, and never all together again", () =>
  Effect.gen(function* () {
    const { change, sent } = yield* makeWatchers(200, 5_000)
    yield* change
    yield* TestClock.adjust(5_000)
    for (let i = 0; i < 40; i++) {
      yield* change
      yield* TestClock.adjust(250)
    }
    for (const times of sent) {
      const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0))
      assert.isTrue(gaps.every((gap) => gap >= intervalMs))
      // Ten seconds of changes, and the first event.
      assert.isAtLeast(times.length, 1 + 9)
    }
    const steady = sent.flat().filter((time) => time >= 6_000)
    assert.isAtMost(crowd(steady, 100), 2 * 20)
  }).pipe(Effect.scoped)
)

it("places are spread evenly, however many there are", () => {
  const places = Array.from({ length: 1_000 }, (_, n) => Watchers.phaseOf(n))
  for (let tenth = 0; tenth < 10; tenth++) {
    const there = places.filter((place) => Math.floor(place * 10) === tenth)
    assert.closeTo(there.length, 100, 2)
  }
})
