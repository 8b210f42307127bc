import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"

export interface LogLine {
  readonly level: LogLevel.LogLevel
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
  readonly at: number
}

/** Keeps everything logged, from debug upwards. */
export const captureLogs = (
  onLine?: (line: LogLine) => void
): readonly [lines: ReadonlyArray<LogLine>, layer: Layer.Layer<never>] => {
  const lines: Array<LogLine> = []
  const logger = Logger.make<unknown, void>(({ date, fiber, logLevel, message }) => {
    const line = {
      level: logLevel,
      message: (Array.isArray(message) ? message : [message]).map(toText).join(" "),
      annotations: fiber.getRef(References.CurrentLogAnnotations),
      at: date.getTime()
    }
    lines.push(line)
    onLine?.(line)
  })
  return [lines, Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "Debug"))]
}

const toText = (part: unknown): string =>
  part instanceof Error ? (part.stack ?? String(part)) : String(part)

/** What an operator is woken by. */
export const warnings = (lines: ReadonlyArray<LogLine>): ReadonlyArray<LogLine> =>
  lines.filter(({ level }) => level === "Warn" || level === "Error")
