import * as Schedule from "effect/Schedule"

/** The first pause between two attempts to connect. */
const firstPauseMillis = 100

/** Pauses between attempts that fail: doubling up to the longest, 20 % more or less, without end. */
export const betweenAttempts = (longestMillis: number) =>
  Schedule.min([Schedule.exponential(firstPauseMillis), Schedule.spaced(longestMillis)]).pipe(
    Schedule.jittered
  )

/**
 * How long to wait, after a connection was lost, before the next is made: not at
 * all after one that has lived for a while. One that is lost as soon as it is
 * made, by a proxy without a server for instance, is as good as none, and each
 * costs every subscriber a `Resync`.
 */
export const makeAfterLoss = (longestMillis: number): ((livedMillis: number) => number) => {
  let shortLived = 0
  return (livedMillis) => {
    shortLived = livedMillis < longestMillis ? shortLived + 1 : 0
    return shortLived < 2 ? 0 : Math.min(firstPauseMillis * 2 ** (shortLived - 2), longestMillis)
  }
}
