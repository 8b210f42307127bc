import { availableParallelism, tmpdir } from "node:os"
import { basename, join } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

// Compiling `effect` takes a Node a second of CPU, and the tests start a hundred: of workers, examples, programs.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "node-compile-cache")

/** The files that take longest. Begun last, one of them would keep a single worker busy at the end. */
const longest = [
  "Pages",
  "Page",
  "Simulation",
  "PageServe",
  "Examples",
  "App",
  "WatchSimulation",
  "ServeRedis"
]

/** A fresh checkout does not know how long files took, and would begin with the largest ones. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = longest.indexOf(basename(moduleId, ".test.ts"))
      return at === -1 ? longest.length : at
    }
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["**/*.test.ts"],
    sequence: { sequencer: LongestFirst },
    globalSetup: ["support/Servers.ts"],
    // A worker that loads `effect` anew for each file spends a fifth of the run on that. Nothing here
    // keeps state in a module; what a file makes, it takes away.
    isolate: false,
    // Many files wait for timers, processes and a database for half of their time.
    maxWorkers: Math.max(3, availableParallelism()),
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
