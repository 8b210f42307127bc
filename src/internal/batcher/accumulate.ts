import { type Accumulate, estimateBytes } from "./accumulator.ts"
import { AppendOnlyAccumulator } from "./appendOnly.ts"
import * as NewestWins from "./newestWins/accumulator.ts"

/**
 * Keeps the newest record per group and key. A record replaces one of an older
 * or equal time; an older one is passed over.
 *
 * - `group` names what belongs together, a device for one: its records are
 *   announced and forgotten together.
 * - `key` names a record within its group.
 * - `time` is when it was collected, in milliseconds since the epoch.
 * - `withTime` gives the same record with another time. With it, the option
 *   `maxAhead` applies.
 * - `bytes` is what a record takes while it waits, and `NaN` for what is no such
 *   record, which is then dropped. By default two per character of its texts.
 * - `content` is what has to differ for a record to be news. With it, the option
 *   `unchanged` can be used.
 *
 * @category accumulating
 * @since 0.1.0
 */
export const newestWins = <A>(options: {
  readonly group: (record: A) => string
  readonly key: (record: A) => string
  readonly time: (record: A) => number
  readonly withTime?: ((record: A, time: number) => A) | undefined
  readonly bytes?: ((record: A) => number) | undefined
  readonly content?: ((record: A) => ReadonlyArray<string>) | undefined
}): Accumulate<A> => {
  const { content, group, key, time, withTime } = options
  const bytes = options.bytes ?? estimateBytes
  return {
    group,
    key,
    time,
    withTime,
    bytes,
    content,
    make: (environment) => NewestWins.make({ key, time, bytes, content }, environment)
  }
}

/**
 * Keeps every record in the order it came. Where there is no room, the oldest
 * goes first. They are written in that order, but for those of a batch in which
 * the store refuses one: the others are found by halving it.
 *
 * - `group` names what a record belongs to, for notifications; by default all
 *   belong together.
 * - `key` names a record in log lines; by default none is named.
 * - `bytes` is as for `newestWins`.
 *
 * @category accumulating
 * @since 0.1.0
 */
export const appendOnly = <A>(options?: {
  readonly group?: ((record: A) => string) | undefined
  readonly key?: ((record: A) => string) | undefined
  readonly bytes?: ((record: A) => number) | undefined
}): Accumulate<A> => {
  const group = options?.group ?? (() => "")
  const key = options?.key ?? (() => "")
  const bytes = options?.bytes ?? estimateBytes
  return {
    group,
    key,
    time: undefined,
    withTime: undefined,
    bytes,
    content: undefined,
    make: (environment) => new AppendOnlyAccumulator({ key, bytes }, environment)
  }
}
