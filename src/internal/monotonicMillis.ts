import type * as Clock from "effect/Clock"

/**
 * Whole milliseconds of a clock that nobody sets back, for what is measured or
 * awaited. Whole ones, since a rest of 1e-13 ms could never be slept off.
 */
export const monotonicMillis = (clock: Clock.Clock): number =>
  Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
