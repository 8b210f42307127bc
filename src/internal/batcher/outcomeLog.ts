import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import * as throttledLog from "../throttledLog.ts"
import type { Batch, Outcome } from "./batch.ts"
import type { Definition } from "./definition.ts"
import { attempt, printable } from "./failure.ts"
import type { Health } from "./health.ts"
import type { Resolved } from "./options.ts"
import type { AdaptiveSize } from "./statementSize.ts"

/** How many refused rows a log line names. */
const maxNamed = 10

/** Makes a function that says what became of a batch, as log lines; nothing of one that was simply written. */
export const make = <A>(environment: {
  readonly definition: Definition<A>
  readonly options: Resolved
  readonly health: Health
  readonly statementSize: AdaptiveSize
  readonly clock: Clock.Clock
}) => {
  const { clock, definition, health, options, statementSize } = environment
  const refusedLog = throttledLog.make(clock)
  const failedLog = throttledLog.make(clock)
  const sizeLog = throttledLog.make(clock)

  const keyOf = (record: A) => printable(attempt(() => definition.accumulate.key(record), "not a string"))

  return (batch: Batch<A>, { failed, failure, refused }: Outcome): ReadonlyArray<Effect.Effect<void>> => {
    const lines: Array<Effect.Effect<void>> = []
    if (refused.length > 0 && batch.retried === undefined) {
      const rows = refused.slice(0, maxNamed).map(({ position, why }) => ({
        agent: printable(batch.groups[position]),
        key: keyOf(batch.records[position] as A),
        why
      }))
      const message = (count: number) => `the store refused ${count} rows; they are tried again apart`
      lines.push(refusedLog(refused.length, message, { rows }))
    }
    if (failed.length > 0) {
      const message = (count: number) => `discarded ${count} rows: ${failure?.message}`
      lines.push(failedLog(failed.length, message, {}))
    }
    if (failure === undefined) {
      if (health.isDown()) lines.push(health.succeeded())
    } else if (options.onWriteFailure === "requeue") lines.push(health.failed(failure))
    if (statementSize.isReduced() && failure === undefined) {
      const rows = statementSize.rows()
      const message = () => `statements were too much for the store: at most ${rows} rows each for a while`
      lines.push(sizeLog(1, message, { rows }))
    }
    return lines
  }
}
