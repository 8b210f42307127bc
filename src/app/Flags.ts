/**
 * Command-line flags of the kinds the commands need. Each names its default, and
 * each is also a variable of the same name: `--flush-interval` is
 * `EMB_FLUSH_INTERVAL`. The flag counts if both are given.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Flag from "effect/cli/Flag"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

/**
 * The variable of a flag.
 *
 * @category conversions
 * @since 0.1.0
 */
export const variableOf = (name: string): string => `EMB_${name.toUpperCase().replaceAll("-", "_")}`

const millisPer: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000
}

/**
 * A duration such as `500ms`, `1.5s`, `2m`, `1h` or `30d`; `0s` only where nothing may be meant.
 *
 * @category conversions
 * @since 0.1.0
 */
export const parseDuration = (text: string, least = 1): Option.Option<Duration.Duration> => {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? []
  const millis = Number(number) * (millisPer[unit] ?? Number.NaN)
  return millis >= least ? Option.some(Duration.millis(millis)) : Option.none()
}

const durationOf = (text: Flag.Flag<string>, least = 1): Flag.Flag<Duration.Duration> =>
  text.pipe(
    Flag.withMetavar("duration"),
    Flag.filterMap(
      (text) => parseDuration(text, least),
      () => "a duration such as 500ms, 10s or 2m"
    )
  )

const textOf = (name: string, description: string): Flag.Flag<string> =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.withFallbackConfig(Config.String(variableOf(name)))
  )

/**
 * A duration such as `500ms`, `1.5s`, `2m` or `1h`, of at least `least` milliseconds.
 *
 * @category flags
 * @since 0.1.0
 */
export const duration = (
  name: string,
  defaultValue: string,
  description: string,
  least = 1
): Flag.Flag<Duration.Duration> =>
  durationOf(
    textOf(name, `${description} (default ${defaultValue})`).pipe(Flag.withDefault(defaultValue)),
    least
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
): Flag.Flag<Option.Option<Duration.Duration>> => Flag.optional(durationOf(textOf(name, description)))

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
    Flag.withFallbackConfig(Config.Int(variableOf(name))),
    Flag.withDefault(defaultValue),
    Flag.filter(
      (number) => number >= least,
      () => `a whole number of at least ${least}`
    )
  )

/**
 * A whole number that need not be given.
 *
 * @category flags
 * @since 0.1.0
 */
export const optionalCount = (name: string, description: string): Flag.Flag<Option.Option<number>> =>
  Flag.Int(name).pipe(
    Flag.withMetavar("number"),
    Flag.withDescription(description),
    Flag.withFallbackConfig(Config.Int(variableOf(name))),
    Flag.filter(
      (number) => number >= 1,
      () => "a whole number of at least 1"
    ),
    Flag.optional
  )

/**
 * A share of all, from 0 to 1.
 *
 * @category flags
 * @since 0.1.0
 */
export const share = (name: string, description: string): Flag.Flag<number> =>
  Flag.Finite(name).pipe(
    Flag.withMetavar("share"),
    Flag.withDescription(`${description} (0 to 1, default 0)`),
    Flag.withFallbackConfig(Config.Finite(variableOf(name))),
    Flag.withDefault(0),
    Flag.filter(
      (number) => number >= 0 && number <= 1,
      () => "a share from 0 to 1"
    )
  )

/**
 * A text.
 *
 * @category flags
 * @since 0.1.0
 */
export const text = (name: string, defaultValue: string, description: string): Flag.Flag<string> =>
  textOf(name, defaultValue === "" ? description : `${description} (default ${defaultValue})`).pipe(
    Flag.withDefault(defaultValue)
  )

/**
 * A text that need not be given.
 *
 * @category flags
 * @since 0.1.0
 */
export const optionalText = (name: string, description: string): Flag.Flag<Option.Option<string>> =>
  Flag.optional(textOf(name, description))

/**
 * Yes or no; no unless it is given.
 *
 * @category flags
 * @since 0.1.0
 */
export const yes = (name: string, description: string): Flag.Flag<boolean> =>
  Flag.Boolean(name).pipe(
    Flag.withDescription(description),
    Flag.withFallbackConfig(Config.Boolean(variableOf(name))),
    Flag.withDefault(false)
  )

/**
 * Whether to make the metadata table `UNLOGGED`.
 *
 * @category flags
 * @since 0.1.0
 */
export const unlogged: Flag.Flag<boolean> = yes(
  "unlogged",
  "Make the metadata table UNLOGGED: faster, but a crash of PostgreSQL empties it"
)
