/**
 * What one would otherwise use, each in the fastest way its own documentation
 * gives for this job: a report to an item. "+ Map" dedupes a batch as it is
 * written, because the same key twice in one statement is an error.
 *
 * Who has a bounded buffer is given the batcher's: 2,500 facts. Who has none
 * flushes by time alone where the workload says so.
 */
import { TraceFlags } from "@opentelemetry/api"
import { BatchSpanProcessor, type ReadableSpan } from "@opentelemetry/sdk-trace-base"
import { AsyncBatcher } from "@tanstack/pacer"
import DataLoader from "dataloader"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import * as Schedule from "effect/Schedule"
import * as EffectSink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { AgentId } from "../../src/AgentId.ts"
import type { Metadata } from "../../src/Metadata.ts"
import { type Contestant, fromAdapter, type Open, type Sink, toEffect, tracked } from "./contestant.ts"
import { Columns, columns, dedupe, NewestWins } from "./newestWins.ts"
import { capacity, factsPerReport, type Report, reportAt, stride, turn, type Workload } from "./workload.ts"

const reportCapacity = capacity / factsPerReport
const reportsPerBatch = ({ batchSize }: Workload) => batchSize / factsPerReport

/** No buffer, no timer, no fiber. It looks at the clock where the workload flushes by time. */
const makeLoop = (workload: Workload, sink: Sink) => {
  const fold = new NewestWins()
  let deadline = performance.now() + workload.interval
  return {
    add: (report: Report) => fold.add(report),
    isFull: (i: number) =>
      workload.timerOnly
        ? i % stride === 0 && performance.now() >= deadline
        : fold.size >= workload.batchSize,
    write: () => {
      deadline = performance.now() + workload.interval
      return fold.size > 0 ? sink(fold.take()) : undefined
    }
  }
}

export const limit: Contestant = {
  name: "limit",
  label: "bare nested Map loop (the limit)",
  bounded: false,
  deduped: "in the buffer",
  timed: "yes",
  open: async (workload, sink) => ({
    produce: async (reports, count) => {
      const loop = makeLoop(workload, sink)
      for (let i = 1; i <= count; i++) {
        loop.add(reportAt(reports, i - 1))
        const written = loop.isFull(i) ? loop.write() : undefined
        if (written !== undefined) await written
      }
      await loop.write()
    },
    close: async () => {}
  })
}

/** The same loop in a generator, each report through an effect: less than this no `yield* add` can take. */
export const limitInEffect: Contestant = {
  ...limit,
  name: "limitInEffect",
  label: "the same, yield* Effect.sync for each report",
  open: async (workload, sink) => ({
    produce: (reports, count) =>
      Effect.runPromise(
        Effect.gen(function* () {
          const loop = makeLoop(workload, sink)
          for (let i = 1; i <= count; i++) {
            yield* Effect.sync(() => loop.add(reportAt(reports, i - 1)))
            if (loop.isFull(i)) yield* toEffect(loop.write())
          }
          yield* toEffect(loop.write())
        })
      ),
    close: async () => {}
  })
}

export const mapInterval: Contestant = {
  name: "map",
  label: "hand-rolled Map + setInterval",
  bounded: false,
  deduped: "in the buffer",
  timed: "yes",
  open: async (workload, sink) => {
    const fold = new NewestWins()
    const { write, idle } = tracked(sink)
    const flush = () => {
      if (fold.size > 0) write(fold.take())
    }
    const timer = setInterval(flush, workload.interval)
    return fromAdapter({
      add: (report) => {
        fold.add(report)
        if (!workload.timerOnly && fold.size >= workload.batchSize) flush()
      },
      drain: () => {
        flush()
        return idle()
      },
      close: async () => clearInterval(timer)
    })
  }
}

/** A queue, and the stream that batches what it holds. */
const openStream = <A>(
  make: (items: Stream.Stream<Report>) => Stream.Stream<A>,
  write: (batch: A) => Effect.Effect<void>
): Promise<Open> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const queue = yield* Queue.dropping<Report, Cause.Done>(reportCapacity)
      const fiber = yield* Effect.forkDetach(Stream.runForEach(make(Stream.fromQueue(queue)), write))
      return fromAdapter({
        add: (report) => {
          if (!Queue.offerUnsafe(queue, report)) throw new Error("a report was dropped")
        },
        hasRoom: () => Queue.sizeUnsafe(queue) <= reportCapacity - stride,
        drain: () => {
          Queue.endUnsafe(queue)
          return Effect.runPromise(Fiber.join(fiber))
        }
      })
    })
  )

export const groupedWithin: Contestant = {
  name: "groupedWithin",
  label: "Effect Stream.groupedWithin",
  bounded: true,
  deduped: "no",
  timed: "yes",
  open: (workload, sink) =>
    openStream(Stream.groupedWithin(reportsPerBatch(workload), workload.interval), (reports) =>
      Effect.suspend(() => toEffect(sink(columns(reports))))
    )
}

export const groupedWithinMap: Contestant = {
  ...groupedWithin,
  name: "groupedWithinMap",
  label: "Effect Stream.groupedWithin + Map",
  deduped: "at the write",
  open: (workload, sink) =>
    openStream(Stream.groupedWithin(reportsPerBatch(workload), workload.interval), (reports) =>
      Effect.suspend(() => toEffect(sink(dedupe(reports))))
    )
}

type Held = { readonly agentId: AgentId; readonly fact: Metadata }

const foldReport = (map: HashMap.HashMap<string, Held>, { agentId, facts }: Report) => {
  for (const fact of facts) {
    const key = `${agentId}/${fact.key}`
    const old = HashMap.get(map, key)
    if (
      Option.isNone(old) ||
      fact.collectedAt.epochMilliseconds >= old.value.fact.collectedAt.epochMilliseconds
    ) {
      map = HashMap.set(map, key, { agentId, fact })
    }
  }
  return map
}

export const hashMapFold: Contestant = {
  ...groupedWithin,
  name: "hashMap",
  label: "Effect Stream.aggregateWithin + HashMap",
  deduped: "in the buffer",
  maxFacts: 500_000,
  open: (workload, sink) =>
    openStream(
      Stream.aggregateWithin(
        EffectSink.reduceWhile(
          () => HashMap.empty<string, Held>(),
          (map) => HashMap.size(map) < workload.batchSize,
          foldReport
        ),
        Schedule.spaced(workload.interval)
      ),
      (map) =>
        Effect.suspend(() => {
          const batch = new Columns(HashMap.size(map))
          for (const { agentId, fact } of HashMap.values(map)) batch.add(agentId, fact)
          return batch.keys.length === 0 ? Effect.void : toEffect(sink(batch))
        })
    )
}

interface Write extends Request.Request<void> {
  readonly _tag: "Write"
  readonly report: Report
}
const Write = Request.tagged<Write>("Write")

export const requestResolver: Contestant = {
  name: "resolver",
  label: "Effect RequestResolver + Map",
  bounded: false,
  deduped: "at the write",
  timed: "yes",
  open: async (workload, sink) => {
    const max = workload.timerOnly ? Number.POSITIVE_INFINITY : reportsPerBatch(workload)
    let outstanding = 0
    let closing = false
    const resolver = RequestResolver.makeWith<Write>({
      batchKey: () => "all",
      delay: Effect.sleep(workload.interval),
      collectWhile: (entries) => entries.size < max && !closing,
      runAll: (entries) =>
        Effect.suspend(() => {
          const batch = dedupe(entries.map((entry) => entry.request.report))
          const result = batch.keys.length === 0 ? undefined : sink(batch)
          const complete = () => {
            for (const entry of entries) entry.completeUnsafe(Exit.void)
          }
          return Effect.map(toEffect(result), complete)
        })
    })
    const onExit = () => {
      outstanding--
    }
    const context = Context.empty()
    const add = (report: Report) => {
      outstanding++
      Effect.requestUnsafe(Write({ report }), { resolver, onExit, context })
    }
    return fromAdapter({
      add,
      drain: async () => {
        // A resolver cannot be told to flush: an empty request closes the batch instead.
        closing = true
        add({ agentId: "" as AgentId, facts: [] })
        while (outstanding > 0) await turn()
        closing = false
      }
    })
  }
}

export const dataLoader: Contestant = {
  name: "dataloader",
  label: "DataLoader + Map",
  bounded: false,
  deduped: "at the write",
  timed: "no",
  open: async (workload, sink) => {
    let flush = () => {}
    const loader = new DataLoader<Report, void>(
      async (reports) => {
        await sink(dedupe(reports))
        return Array.from(reports, () => undefined)
      },
      {
        cache: false,
        maxBatchSize: workload.timerOnly ? Number.POSITIVE_INFINITY : reportsPerBatch(workload),
        batchScheduleFn: workload.timerOnly
          ? (dispatch) => {
              const timer = setTimeout(dispatch, workload.interval)
              flush = () => {
                clearTimeout(timer)
                dispatch()
              }
            }
          : setImmediate
      }
    )
    let outstanding = 0
    const done = () => {
      outstanding--
    }
    return fromAdapter({
      add: (report) => {
        outstanding++
        loader.load(report).then(done)
      },
      drain: async () => {
        flush()
        while (outstanding > 0) await turn()
      }
    })
  }
}

export const pacer: Contestant = {
  name: "pacer",
  label: "TanStack Pacer AsyncBatcher + Map",
  bounded: false,
  deduped: "at the write",
  timed: "restarts",
  maxFacts: 20_000,
  open: async (workload, sink) => {
    const { write, idle } = tracked(sink)
    const batcher = new AsyncBatcher<Report>(
      (reports) => new Promise<void>((resolve) => write(dedupe(reports), resolve)),
      {
        maxSize: workload.timerOnly ? Number.POSITIVE_INFINITY : reportsPerBatch(workload),
        wait: workload.interval
      }
    )
    return fromAdapter({
      add: (report) => void batcher.addItem(report),
      drain: async () => {
        await batcher.flush()
        await idle()
      }
    })
  }
}

/** A report in a span's clothes: what the processor looks at before it buffers one. */
class Span {
  readonly resource = { asyncAttributesPending: false }
  readonly report: Report
  constructor(report: Report) {
    this.report = report
  }
  spanContext() {
    return sampled
  }
}
const sampled = { traceId: "", spanId: "", traceFlags: TraceFlags.SAMPLED }

export const otel: Contestant = {
  name: "otel",
  label: "OpenTelemetry BatchSpanProcessor + Map",
  bounded: true,
  deduped: "at the write",
  timed: "yes",
  open: async (workload, sink) => {
    let outstanding = 0
    const { idle, write } = tracked(sink)
    const processor = new BatchSpanProcessor(
      {
        export: (spans, callback) =>
          write(dedupe((spans as unknown as ReadonlyArray<Span>).map((span) => span.report)), () => {
            outstanding -= spans.length
            callback({ code: 0 })
          }),
        shutdown: async () => {}
      },
      {
        maxQueueSize: reportCapacity,
        maxExportBatchSize: reportsPerBatch(workload),
        scheduledDelayMillis: workload.interval
      }
    )
    return fromAdapter({
      add: (report) => {
        outstanding++
        processor.onEnd(new Span(report) as unknown as ReadableSpan)
      },
      hasRoom: () => outstanding <= reportCapacity - stride,
      drain: async () => {
        await processor.forceFlush()
        await idle()
        if (outstanding > 0) throw new Error("reports were dropped")
      },
      close: () => processor.shutdown()
    })
  }
}

export const peers: ReadonlyArray<Contestant> = [
  mapInterval,
  groupedWithin,
  groupedWithinMap,
  hashMapFold,
  requestResolver,
  dataLoader,
  pacer,
  otel
]
