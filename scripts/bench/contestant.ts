/**
 * What is raced: something that takes reports and hands batches to a sink.
 */
import * as Effect from "effect/Effect"
import type { MetadataBatch } from "../../src/Metadata.ts"
import { type Report, reportAt, stride, turn, type Workload } from "./workload.ts"

/** Takes the batches; returns a promise where the write takes time. */
export type Sink = (batch: MetadataBatch) => void | Promise<void>

export interface Open {
  /** Adds `count` of the reports, given over and over; returns once all of it has been written. */
  readonly produce: (reports: ReadonlyArray<Report>, count: number) => Promise<void>
  readonly close: () => Promise<void>
}

export interface Contestant {
  readonly name: string
  readonly label: string
  /** Whether its buffer has a bound and refuses what is beyond it. */
  readonly bounded: boolean
  /** Whether a key is held once: as soon as it is added, once it is written, or not at all. */
  readonly deduped: "in the buffer" | "at the write" | "no"
  /** Whether it flushes by time as well as by size. */
  readonly timed: "yes" | "no" | "restarts"
  /** The most facts it is given, for those that would take minutes. */
  readonly maxFacts?: number | undefined
  readonly open: (workload: Workload, sink: Sink) => Promise<Open>
}

/** The parts of a contestant that takes its reports one call at a time. */
export interface Adapter {
  readonly add: (report: Report) => void
  /** Whether a stride of reports fits, so that nothing is refused. */
  readonly hasRoom?: (() => boolean) | undefined
  /** Returns once all that was added has been written. */
  readonly drain: () => Promise<void>
  readonly close?: (() => Promise<void>) | undefined
}

/** The producing loop that all adapters share. */
export const fromAdapter = (adapter: Adapter): Open => ({
  produce: async (reports, count) => {
    for (let i = 1; i <= count; i++) {
      adapter.add(reportAt(reports, i - 1))
      if (i % stride === 0) {
        do await turn()
        while (adapter.hasRoom?.() === false)
      }
    }
    await adapter.drain()
  },
  close: async () => adapter.close?.()
})

/** Counts the writes under way, for the peers that leave it to their user. */
export const tracked = (sink: Sink) => {
  let inFlight = 0
  return {
    write: (batch: MetadataBatch, done?: () => void): void => {
      const result = sink(batch)
      if (result === undefined) {
        done?.()
        return
      }
      inFlight++
      result.then(() => {
        inFlight--
        done?.()
      })
    },
    idle: async () => {
      while (inFlight > 0) await turn()
    }
  }
}

/** What a sink returned, as an effect. */
export const toEffect = (result: void | Promise<void>): Effect.Effect<void> =>
  result === undefined ? Effect.void : Effect.promise(() => result)
