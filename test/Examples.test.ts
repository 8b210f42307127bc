import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Databases from "./support/Databases.ts"
import { type Example, extract, extractAll, makeWorkspace, type Workspace } from "./support/Examples.ts"

const fixture = `/**
 * \`\`\`ts
 * import { AgentId } from "effect-metadata-batcher"
 * const id: AgentId.AgentId = 1
 * \`\`\`
 */
export interface Options {
  /**
   * \`\`\`ts
   * if (true) {
   *
   *   throw new Error("wrong")
   * }
   * \`\`\`
   *
   * \`\`\`ts no-run
   * throw new Error("not run")
   * \`\`\`
   *
   * \`\`\`sh
   * npm start
   * \`\`\`
   */
  readonly a: string
}
`

describe.concurrent("Examples", () => {
  const controls = extract("Fixture.ts", fixture)
  const examples = extractAll()
  const databases = Databases.make()
  let workspace: Workspace
  let diagnosticsOf: (example: Example) => string

  beforeAll(async () => {
    workspace = makeWorkspace([...controls, ...examples])
    diagnosticsOf = await workspace.compile()
  }, 120_000)
  afterAll(() => Promise.all([workspace[Symbol.asyncDispose](), databases[Symbol.asyncDispose]()]), 60_000)

  for (const example of examples) {
    it(example.name, async () => {
      assert.strictEqual(diagnosticsOf(example), "")
      if (example.runs) {
        const environment = example.code.includes("DATABASE_URL")
          ? { DATABASE_URL: await databases.create() }
          : undefined
        const { exitCode, output } = await workspace.run(example, environment)
        assert.strictEqual(exitCode, 0, output)
      }
    }, 90_000)
  }

  it("finds every block, wherever it stands", () => {
    assert.deepStrictEqual(
      controls.map(({ name, runs }) => [name, runs]),
      [
        ["Fixture.ts:2", true],
        ["Fixture.ts:9", true],
        ["Fixture.ts:16", false]
      ]
    )
    assert.deepStrictEqual(
      extract("a.md", "1. In a list\n\n   ```ts\n   f()\n   ```\n").map(({ code }) => code.trim()),
      ["f()"]
    )
    assert.throws(() => extract("a.md", "```ts\nf()\n"), "a.md:1: the block does not end")
    assert.isTrue(examples.some(({ name }) => name.startsWith("src/AgentId.ts:")))
  })

  it("reports an example that does not compile, at its line", () => {
    assert.match(diagnosticsOf(controls[0] as Example), /^Fixture-ts-2\.ts\(4,7\): error TS2322/)
    assert.strictEqual(diagnosticsOf(controls[1] as Example), "")
  })

  it("reports an example that fails, at its line", async () => {
    const { exitCode, output } = await workspace.run(controls[1] as Example)
    assert.strictEqual(exitCode, 1)
    assert.match(output, /Fixture-ts-9\.ts:12\b/)
    assert.include(output, "Error: wrong")
  })
})
