import type * as Batcher from "../Batcher.ts"

/**
 * The account of a batcher: where each fact that was ever offered is now.
 *
 * Every step that moves a fact moves it here in the same synchronous run, so
 * that at any instant
 * `offered = dropped + queued + superseded + pending + inFlight + written + discarded`.
 */
export class Ledger implements Batcher.Ledger {
  offered = 0
  dropped = 0
  queued = 0
  superseded = 0
  pending = 0
  inFlight = 0
  written = 0
  discarded = 0
}
