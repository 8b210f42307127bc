import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"
import packageJson from "../../package.json" with { type: "json" }
import * as Commands from "./Commands.ts"

// The first signal interrupts the program, which then writes what is left; a
// second one ends it at once. npm passes on the Ctrl-C that the terminal has
// sent already: what arrives together is one.
let firstSignalAt = Number.POSITIVE_INFINITY
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    firstSignalAt = Math.min(firstSignalAt, performance.now())
    if (performance.now() - firstSignalAt > 500) process.exit(130)
  })
}

// Ending by a signal is no failure; having lost something is, and has set the code. The process ends
// here, whatever still holds a timer: an exporter that retries, for one.
const teardown: Runtime.Teardown = (exit) =>
  Runtime.defaultTeardown(exit, (code) =>
    process.exit(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? process.exitCode : code)
  )

Commands.command.pipe(
  Command.run({ version: packageJson.version }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({ teardown })
)
