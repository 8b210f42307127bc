/**
 * Command-line flags of the kinds the demo needs, which name their defaults.
 *
 * @since 0.1.0
 */
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

const millisPer: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

const parseDuration = (text: string): Option.Option<Duration.Duration> => {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? []
  const millis = Number(number) * (millisPer[unit] ?? 0)
  return millis >= 1 ? Option.some(Duration.millis(millis)) : Option.none()
}

const durationOf = (text: Flag.Flag<string>): Flag.Flag<Duration.Duration> =>
  text.pipe(
    Flag.withMetavar("duration"),
    Flag.filterMap(parseDuration, () => "a duration such as 500ms, 10s or 2m")
  )

/**
 * A duration such as `500ms`, `1.5s`, `2m` or `1h`.
 *
 * @category flags
 * @since 0.1.0
 */
export const duration = (
  name: string,
  defaultValue: string,
  description: string
): Flag.Flag<Duration.Duration> =>
  durationOf(
    Flag.String(name).pipe(
      Flag.withDescription(`${description} (default ${defaultValue})`),
      Flag.withDefault(defaultValue)
    )
  )

/**
 * A duration that need not be given.
 *
 * @category flags
 * @since 0.1.0
 */
export const optionalDuration = (
  name: string,
  description: string
): Flag.Flag<Option.Option<Duration.Duration>> =>
  Flag.optional(durationOf(Flag.withDescription(Flag.String(name), description)))

/**
 * A whole number of at least `least`.
 *
 * @category flags
 * @since 0.1.0
 */
export const count = (
  name: string,
  defaultValue: number,
  description: string,
  least = 1
): Flag.Flag<number> =>
  Flag.Int(name).pipe(
    Flag.withMetavar("number"),
    Flag.withDescription(`${description} (default ${defaultValue})`),
    Flag.withDefault(defaultValue),
    Flag.filter(
      (number) => number >= least,
      () => `a whole number of at least ${least}`
    )
  )

/**
 * Whether to make the metadata table `UNLOGGED`.
 *
 * @category flags
 * @since 0.1.0
 */
export const unlogged: Flag.Flag<boolean> = Flag.Boolean("unlogged").pipe(
  Flag.withDescription("Make the metadata table UNLOGGED: faster, but a crash of PostgreSQL empties it"),
  Flag.withDefault(false)
)
