import type { Accounting } from "./models.ts"

/**
 * Where each record that was ever offered is now, and how many bytes wait.
 *
 * Every step that moves a record moves it here in the same synchronous run, so
 * that the sum is exact at any instant. Only the intake and the accumulators
 * change it.
 */
export class Account implements Accounting {
  offered = 0
  dropped = 0
  queued = 0
  superseded = 0
  unchanged = 0
  pending = 0
  inFlight = 0
  refused = 0
  written = 0
  discarded = 0
  /** Bytes of what is queued, pending, in flight and refused. */
  bytes = 0

  /** Records that `maxPending` bounds. What is in a write comes on top: it is a batch or a few. */
  get waiting(): number {
    return this.queued + this.pending + this.refused
  }

  snapshot(): Accounting {
    const { bytes: _, ...accounting } = { ...this }
    return accounting
  }
}
