/** The engine under records of an application's own: clicks, added up per page. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Batcher from "../src/Batcher.ts"
import * as BatcherMetrics from "../src/BatcherMetrics.ts"
import * as Store from "../src/Store.ts"
import { assertAddsUp } from "./support/Fakes.ts"

/** `size` clicks on one page. */
interface Clicks extends Batcher.Message {
  readonly page: string
}

/** The clicks of one page that wait to be written; the first of them brought it. */
interface Total {
  readonly origin: Clicks
  clicks: number
}

/** One row per page, however many clicks: the row counts, the clicks it gathers are superseded. */
const totals = (ledger: Batcher.Ledger, maxPending: number) =>
  Effect.sync((): Batcher.Accumulator<Clicks, Total> => {
    const pending = new Map<string, Total>()

    const fold = (origin: Clicks): void => {
      const total = pending.get(origin.page)
      if (total !== undefined) {
        total.clicks += origin.size
        ledger.superseded += origin.size
      } else if (ledger.pending + ledger.inFlight < maxPending) {
        pending.set(origin.page, { origin, clicks: origin.size })
        ledger.pending += 1
        ledger.superseded += origin.size - 1
      } else {
        ledger.dropped += origin.size
      }
    }

    const restore = (row: Total): void => {
      const total = pending.get(row.origin.page)
      ledger.inFlight -= 1
      if (total === undefined) {
        pending.set(row.origin.page, row)
        ledger.pending += 1
      } else {
        total.clicks += row.clicks
        ledger.superseded += 1
      }
    }

    return {
      fold: (next) =>
        Effect.sync(() => {
          for (let clicks = next(); clicks !== undefined; clicks = next()) fold(clicks)
        }),
      take: (max) =>
        Effect.sync(() => {
          const rows = Array.from(pending.values()).slice(0, max)
          for (const { origin } of rows) pending.delete(origin.page)
          ledger.pending -= rows.length
          ledger.inFlight += rows.length
          return rows
        }),
      restore: (rows) => Effect.sync(() => rows.forEach(restore)),
      oldest: (writing) => [...writing, ...pending.values()].at(0)?.origin.addedAt
    }
  })

const makeClickCounter = Effect.fnUntraced(function* (
  write: (rows: ReadonlyArray<Total>) => Effect.Effect<Store.WriteResult, Store.StoreError>,
  options?: Batcher.Options
) {
  const clock = yield* Clock.Clock
  const batcher = yield* Batcher.make<Clicks, Total>({
    name: "ClickCounter",
    kind: "clicks",
    options: { metricsPrefix: "shop", ...options },
    defaults: { maxBatchSize: 3, interval: "1 second", flushAtShare: 1 },
    accumulator: totals,
    write,
    truncate: (clicks, size) => ({ ...clicks, size }),
    agentOf: ({ page }) => page,
    keyOf: ({ origin }) => origin.page
  })
  return {
    ...batcher,
    click: (page: string, size = 1) =>
      batcher.offerUnsafe({ page, size, addedAt: clock.currentTimeMillisUnsafe(), span: undefined })
  }
})

/** A table of clicks per page, and how many writes it took. */
const makeTable = () => {
  const clicks = new Map<string, number>()
  const writes: Array<number> = []
  return {
    clicks,
    writes,
    write: (rows: ReadonlyArray<Total>) =>
      Effect.sync(() => {
        writes.push(rows.length)
        for (const row of rows) clicks.set(row.origin.page, (clicks.get(row.origin.page) ?? 0) + row.clicks)
        return Store.allChanged(rows.length)
      })
  }
}

describe("Batcher", () => {
  it.effect("batches records of an application's own", () =>
    Effect.gen(function* () {
      const table = makeTable()
      const counter = yield* makeClickCounter(table.write)
      counter.click("/")
      counter.click("/shop")
      counter.click("/", 3)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        table.clicks,
        new Map([
          ["/", 4],
          ["/shop", 1]
        ])
      )
      assert.deepStrictEqual(table.writes, [2])
      const account = yield* counter.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { offered: 5, superseded: 3, written: 2 })
    })
  )

  it.effect("flushes at capacity, on schedule, on demand and at shutdown", () =>
    Effect.gen(function* () {
      const table = makeTable()
      const scope = yield* Scope.make()
      const counter = yield* Scope.provide(makeClickCounter(table.write), scope)
      for (const page of ["/a", "/b", "/c", "/d"]) counter.click(page)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(table.writes, [3, 1])
      for (const page of ["/a", "/b"]) counter.click(page)
      yield* counter.flush
      assert.deepStrictEqual(table.writes, [3, 1, 2])
      counter.click("/a")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(table.writes, [3, 1, 2, 1])
      assert.deepStrictEqual(table.clicks.get("/a"), 3)
      const { metrics, count } = shopMetrics
      for (const reason of ["capacity", "scheduled", "manual", "shutdown"]) {
        assert.strictEqual(yield* count(Metric.withAttributes(metrics.batches, { reason })), 1)
      }
      assert.strictEqual(yield* count(metrics.flushed), 7)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("keeps what a failed write held, together with what came since", () =>
    Effect.gen(function* () {
      const table = makeTable()
      let down = true
      const counter = yield* makeClickCounter((rows) =>
        Effect.suspend(() => (down ? Effect.fail(Store.unavailable("down")) : table.write(rows)))
      )
      counter.click("/", 2)
      yield* counter.flush
      counter.click("/", 3)
      yield* counter.flush
      yield* assertAddsUp(yield* counter.accounting)
      down = false
      yield* counter.flush
      assert.deepStrictEqual(table.clicks, new Map([["/", 5]]))
      yield* assertAddsUp(yield* counter.accounting)
    })
  )

  it.effect("bounds its queue and what is pending", () =>
    Effect.gen(function* () {
      const table = makeTable()
      const counter = yield* makeClickCounter(table.write, { maxPending: 3, capacity: 5 })
      assert.strictEqual(counter.click("/", 7), 5)
      assert.strictEqual(counter.click("/"), 0)
      yield* counter.flush
      assert.deepStrictEqual(table.clicks, new Map([["/", 5]]))
      const account = yield* counter.accounting
      yield* assertAddsUp(account)
      assert.deepInclude(account, { offered: 8, dropped: 3, superseded: 4, written: 1 })
    })
  )

  for (const throwing of ["fold", "take", "agentOf", "write"] as const) {
    it.effect(`a ${throwing} that throws does not end it`, () =>
      Effect.gen(function* () {
        const table = makeTable()
        let broken = true
        const bug =
          <Args extends ReadonlyArray<unknown>, A>(name: string, run: (...args: Args) => A) =>
          (...args: Args): A => {
            if (broken && name === throwing) throw new TypeError("a bug")
            return run(...args)
          }
        const batcher = yield* Batcher.make<Clicks, Total>({
          name: "ClickCounter",
          kind: "clicks",
          defaults: { maxBatchSize: 3, interval: "1 second", flushAtShare: 1 },
          accumulator: (ledger, maxPending) =>
            Effect.map(totals(ledger, maxPending), ({ fold, oldest, restore, take }) => ({
              fold: (next) => Effect.suspend(() => bug("fold", fold)(next)),
              take: (max) => Effect.suspend(() => bug("take", take)(max)),
              restore,
              oldest
            })),
          write: bug("write", table.write),
          truncate: (clicks, size) => ({ ...clicks, size }),
          agentOf: bug("agentOf", ({ page }) => page),
          keyOf: ({ origin }) => origin.page
        })
        const click = (page: string) => batcher.offerUnsafe({ page, size: 1, addedAt: 0, span: undefined })
        // Enough for a flush at capacity; then one that is awaited, and one on schedule.
        for (const page of ["/a", "/b", "/c"]) click(page)
        yield* batcher.flush
        yield* TestClock.adjust("1 second")
        yield* assertAddsUp(yield* batcher.accounting)
        broken = false
        click("/d")
        yield* TestClock.adjust("1 second")
        yield* batcher.flush
        assert.sameMembers([...table.clicks.keys()], ["/a", "/b", "/c", "/d"])
        const account = yield* batcher.accounting
        yield* assertAddsUp(account)
        assert.deepInclude(account, { pending: 0, inFlight: 0 })
      })
    )
  }

  it.effect("closes in time, and with pauses, though what it holds cannot be taken out", () =>
    Effect.gen(function* () {
      let takes = 0
      const scope = yield* Scope.make()
      const batcher = yield* Batcher.make<Clicks, Total>({
        name: "ClickCounter",
        kind: "clicks",
        options: { shutdownTimeout: "10 seconds" },
        defaults: { maxBatchSize: 3, interval: "1 second", flushAtShare: 1 },
        accumulator: (ledger, maxPending) =>
          Effect.map(totals(ledger, maxPending), (accumulator) => ({
            ...accumulator,
            take: () => {
              takes += 1
              return Effect.die(new TypeError("a bug"))
            }
          })),
        write: (rows) => Effect.succeed(Store.allChanged(rows.length)),
        truncate: (clicks, size) => ({ ...clicks, size }),
        agentOf: ({ page }) => page,
        keyOf: ({ origin }) => origin.page
      }).pipe(Scope.provide(scope))
      batcher.offerUnsafe({ page: "/", size: 1, addedAt: 0, span: undefined })
      const closed = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(closed)
      // 100, 200, 400 and then 800 ms.
      assert.isAtMost(takes, 20)
      assert.deepInclude(yield* batcher.accounting, { offered: 1, discarded: 1 })
    })
  )
})

const shopMetrics = {
  metrics: BatcherMetrics.make({ prefix: "shop", kind: "clicks" }),
  count: (metric: Metric.Counter<number>) => Effect.map(Metric.value(metric), ({ count }) => count)
}
