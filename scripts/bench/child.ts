/**
 * The process of one sample: prints what the given module's `sample` returns
 * for the given input.
 */
const [module = "", input = ""] = process.argv.slice(2)
const { sample } = (await import(module)) as { readonly sample: (input: unknown) => Promise<unknown> }
const result = await sample(JSON.parse(input))
// Some peers leave timers behind that would keep the process for seconds.
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))

export {}
