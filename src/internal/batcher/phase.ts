import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { monotonicMillis } from "../monotonicMillis.ts"
import type { Resolved } from "./options.ts"

/** Whether a batcher takes records and writes, and how long a statement may take. */
export class Phase {
  private readonly clock: Clock.Clock
  private readonly options: Resolved
  private readonly cut = Latch.makeUnsafe(false)
  private closesAt: number | undefined
  isClosed = false

  constructor(clock: Clock.Clock, options: Resolved) {
    this.clock = clock
    this.options = options
  }

  get isOpen(): boolean {
    return this.closesAt === undefined
  }

  close(): void {
    this.closesAt = monotonicMillis(this.clock) + this.options.shutdownTimeout
  }

  millisLeft(): number {
    return this.closesAt === undefined
      ? Number.POSITIVE_INFINITY
      : Math.max(0, this.closesAt - monotonicMillis(this.clock))
  }

  /** Ends the waiting for statements that were sent before the close. */
  cutOff(): void {
    Latch.openUnsafe(this.cut)
  }

  /**
   * When a statement has been waited for long enough. During the close that is
   * after half of the time left, if something else is waiting to be written: a
   * statement that hangs must not cost the others.
   */
  deadline(isLast: () => boolean): Effect.Effect<unknown> {
    const { shutdownTimeout, writeTimeout } = this.options
    const limit = writeTimeout === 0 ? Effect.never : Effect.sleep(writeTimeout)
    if (this.isOpen) return Effect.raceFirst(limit, this.cut.await)
    if (shutdownTimeout === 0) return limit
    return Effect.suspend(() => {
      const left = Math.max(1, isLast() ? this.millisLeft() : this.millisLeft() / 2)
      return Effect.sleep(writeTimeout === 0 ? left : Math.min(writeTimeout, left))
    })
  }
}
