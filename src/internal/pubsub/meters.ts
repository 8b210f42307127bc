import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as PubsubMetrics from "../../PubsubMetrics.ts"
import { observe } from "../gauge.ts"
import { byteLength } from "./limits.ts"
import type { ResyncReason } from "./subscribers.ts"

/** The updates a pubsub makes to its metrics; plain calls, since some are made for every message. */
export interface Meters {
  readonly connected: (connected: boolean) => void
  readonly reconnected: () => void
  readonly resynced: (reason: ResyncReason) => void
  readonly received: (payload: string) => void
  readonly sent: (payloads: ReadonlyArray<string>) => void
  readonly delivered: (seconds: number) => void
}

export const make = Effect.fnUntraced(function* (
  prefix: string
): Effect.fn.Return<Meters, never, Scope.Scope> {
  const metrics = PubsubMetrics.make({ prefix })
  const context = yield* Effect.context<never>()
  const resyncs = {
    reconnect: Metric.withAttributes(metrics.resyncs, { reason: "reconnect" }),
    backlog: Metric.withAttributes(metrics.resyncs, { reason: "backlog" })
  }

  let isConnected = true
  yield* observe(context, metrics.connected, () => (isConnected ? 1 : 0))

  // A counter that first appears with its first event shows no increase for it, and an alert stays silent.
  const { messagesReceived, messagesSent, receivedBytes, reconnects, sentBytes } = metrics
  const perReason = Object.values(resyncs)
  for (const counter of [
    reconnects,
    messagesReceived,
    messagesSent,
    receivedBytes,
    sentBytes,
    ...perReason
  ]) {
    counter.updateUnsafe(0, context)
  }

  return {
    connected: (connected) => {
      isConnected = connected
    },
    reconnected: () => reconnects.updateUnsafe(1, context),
    resynced: (reason) => resyncs[reason].updateUnsafe(1, context),
    received: (payload) => {
      messagesReceived.updateUnsafe(1, context)
      receivedBytes.updateUnsafe(byteLength(payload), context)
    },
    sent: (payloads) => {
      messagesSent.updateUnsafe(payloads.length, context)
      sentBytes.updateUnsafe(
        payloads.reduce((sum, payload) => sum + byteLength(payload), 0),
        context
      )
    },
    delivered: (seconds) => metrics.deliveryLatency.updateUnsafe(seconds, context)
  }
})
