import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { defineConfig } from "vitest/config"

// Compiling `effect` takes a Node a second of CPU, and the tests start a hundred: of workers, examples, programs.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "node-compile-cache")

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["**/*.test.ts"],
    globalSetup: ["support/SharedServer.ts"],
    // Many files wait for timers, processes and a database for half of their time.
    maxWorkers: Math.max(3, availableParallelism()),
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
