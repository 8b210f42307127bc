import { tmpdir } from "node:os"
import { join } from "node:path"
import { defineConfig } from "vitest/config"

// Compiling `effect` takes a Node a second of CPU, and the tests start a hundred: of workers, examples, programs.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "node-compile-cache")

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["**/*.test.ts"],
    globalSetup: ["support/SharedServer.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
