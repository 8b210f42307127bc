/**
 * A sample is taken in a process of its own, so that no contestant runs on what
 * another one has done to the heap or to the compiler's view of shared code.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"

const run = promisify(execFile)
const child = join(import.meta.dirname, "child.ts")

/** Calls `sample(input)` of the module in a fresh process. */
export const sampleIn = async <A>(module: string, input: unknown): Promise<A> => {
  const { stdout } = await run(process.execPath, ["--expose-gc", child, module, JSON.stringify(input)], {
    timeout: 300_000,
    maxBuffer: 1 << 26
  })
  return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as A
}

/**
 * Samples every input once a round, each round in another order: whatever
 * happens to the machine meanwhile happens to all of them.
 */
export const sampleRounds = async <A>(
  module: string,
  inputs: Readonly<Record<string, unknown>>,
  rounds: number
): Promise<Readonly<Record<string, ReadonlyArray<A>>>> => {
  const samples: Record<string, Array<A>> = Object.fromEntries(Object.keys(inputs).map((name) => [name, []]))
  const entries = Object.entries(inputs)
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < entries.length; i++) {
      const [name, input] = entries[(i + round) % entries.length] as [string, unknown]
      if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}: ${name}`)
      samples[name]?.push(await sampleIn<A>(module, input))
    }
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K")
  return samples
}
