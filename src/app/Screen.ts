/**
 * What the user sees: lines that stay and, on a terminal, a table below them
 * that is drawn over in place. Log lines go through it too, so that none tears
 * the table apart.
 *
 * @since 0.1.0
 */
import { stripVTControlCharacters } from "node:util"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"

/**
 * @category services
 * @since 0.1.0
 */
export class Screen extends Context.Service<
  Screen,
  {
    /** Whether `draw` draws in place; otherwise every drawing is printed below the last. */
    readonly isLive: boolean
    /** Writes lines that stay. */
    readonly print: (text: string) => Effect.Effect<void>
    /** Draws these lines in place of those drawn last. */
    readonly draw: (lines: ReadonlyArray<string>) => Effect.Effect<void>
    /** Leaves what is drawn where it is; everything that follows goes below it. */
    readonly keep: Effect.Effect<void>
  }
>()("effect-metadata-batcher/app/Screen") {}

// A line that wraps would make the drawing taller than it is known to be.
const clip = (line: string, columns: number): string => {
  const plain = stripVTControlCharacters(line)
  return plain.length > columns ? plain.slice(0, columns) : line
}

const onTerminal = (out: NodeJS.WriteStream) => {
  let drawing: ReadonlyArray<string> = []
  const erase = () => (drawing.length === 0 ? "" : `\x1b[${drawing.length}F\x1b[0J`)
  const show = () => drawing.map((line) => `${line}\n`).join("")
  return {
    isLive: true,
    print: (text: string) => out.write(`${erase()}${text}\n${show()}`),
    draw: (lines: ReadonlyArray<string>) => {
      const before = erase()
      drawing = lines.slice(0, out.rows - 1).map((line) => clip(line, out.columns))
      out.write(before + show())
    },
    keep: () => {
      drawing = []
    }
  }
}

const onPipe = (out: NodeJS.WriteStream) => ({
  isLive: false,
  print: (text: string) => out.write(`${text}\n`),
  draw: (lines: ReadonlyArray<string>) => out.write(`${lines.join("\n")}\n`),
  keep: () => {}
})

const describe = (part: unknown): string => (part instanceof Error ? part.message : String(part))

// One line per event: the error's message says which failure it was, and its
// stack would only say that it came from the network.
const makeLogger = (print: (text: string) => void) =>
  Logger.make<unknown, void>(({ cause, date, fiber, logLevel, message }) => {
    const parts = [
      message,
      ...cause.reasons.map((reason) => ("error" in reason ? reason.error : reason))
    ].flat()
    const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations)).map(
      ([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`
    )
    const time = date.toISOString().slice(11, 19)
    print([time, logLevel.toUpperCase(), parts.map(describe).join(": "), ...annotations].join(" "))
  })

/**
 * The process's standard output, and a logger that writes to it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Screen> = Layer.unwrap(
  Effect.sync(() => {
    const out = process.stdout
    const screen = out.isTTY && process.env["TERM"] !== "dumb" ? onTerminal(out) : onPipe(out)
    // Nobody reads on (`| head`): ended as by a signal, with everything written.
    out.once("error", () => {
      out.on("error", () => {})
      process.kill(process.pid, "SIGTERM")
    })
    return Layer.merge(
      Layer.succeed(Screen, {
        isLive: screen.isLive,
        print: (text) => Effect.sync(() => screen.print(text)),
        draw: (lines) => Effect.sync(() => screen.draw(lines)),
        keep: Effect.sync(screen.keep)
      }),
      Logger.layer([makeLogger(screen.print)])
    )
  })
)
