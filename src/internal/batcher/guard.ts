import type { Accumulate, Accumulator } from "./accumulator.ts"
import type { Held } from "./held.ts"

/**
 * Looks at each record that is added, for what types forbid and JavaScript
 * sends: shape, length, time. What passes is trusted from then on.
 */
export interface Guard<A> {
  /** A report of these records, or nothing if not each of them can be taken as it is. */
  readonly hold: (
    group: string,
    records: ReadonlyArray<A>,
    at: number,
    latest: number,
    spans: Held<A>["spans"]
  ) => Held<A> | undefined
  /** Those of the first `size` records that are what they should be. One dated after `latest` is dated `at`. */
  readonly usable: (records: ReadonlyArray<A>, size: number, at: number, latest: number) => Usable<A>
}

export interface Usable<A> {
  readonly records: ReadonlyArray<A>
  /** How many of them are dated anew. */
  readonly dated: number
}

export const make = <A>(
  { bytes: bytesOf, key: keyOf, time: timeOf, withTime }: Accumulate<A>,
  accumulator: Pick<Accumulator<A>, "commonKeys">
): Guard<A> => {
  // A key that cannot be told costs its own record, and that later: others of the report are taken.
  const hasKey = (record: A, key: string | undefined): boolean => {
    try {
      return keyOf(record) === key
    } catch {
      return false
    }
  }

  const datedAnew = (record: A, at: number, latest: number): A =>
    withTime !== undefined && timeOf !== undefined && timeOf(record) > latest ? withTime(record, at) : record

  return {
    // Agents of one kind list the same keys. While the keys and the times are at
    // hand it is noted whether these do: folding then looks at no record again.
    hold: (group, records, at, latest, spans) => {
      const keys = accumulator.commonKeys()
      let areCommon = true
      let bytes = 0
      let oldest = Number.POSITIVE_INFINITY
      let newest = Number.NEGATIVE_INFINITY
      try {
        for (let i = 0; i < records.length; i++) {
          const record = records[i] as A
          bytes += bytesOf(record)
          if (timeOf !== undefined) {
            const time = timeOf(record)
            if (!(time <= latest)) return undefined
            if (time < oldest) oldest = time
            if (time > newest) newest = time
          }
          if (areCommon) areCommon = hasKey(record, keys[i])
        }
        areCommon &&= records.length === keys.length
      } catch {
        return undefined
      }
      if (!(bytes >= 0)) return undefined
      return {
        group,
        records,
        own: undefined,
        bytes,
        since: at,
        spans,
        keys: areCommon ? keys : undefined,
        oldest,
        newest,
        quiet: false
      }
    },
    usable: (records, size, at, latest) => {
      const taken: Array<A> = []
      let dated = 0
      for (let i = 0; i < size; i++) {
        try {
          const record = records[i] as A
          const usable = datedAnew(record, at, latest)
          if (!(bytesOf(usable) >= 0) || (timeOf !== undefined && !Number.isFinite(timeOf(usable)))) continue
          if (usable !== record) dated += 1
          taken.push(usable)
        } catch {
          // A getter threw: whatever this was, it cannot be kept.
        }
      }
      return { records: taken, dated }
    }
  }
}

/** How many records something claims to hold; NaN if that cannot be. */
export const sizeOf = (records: unknown): number => {
  try {
    const size = Array.isArray(records) ? records.length : Number.NaN
    return Number.isSafeInteger(size) && size >= 0 ? size : Number.NaN
  } catch {
    return Number.NaN
  }
}
