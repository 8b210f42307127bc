/**
 * Requests made from the OpenAPI document, right ones and wrong ones: none
 * is answered with a 5xx or an answer that the document does not know, and
 * nothing is rejected without a handler.
 */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { agentIdOf } from "./support/Fakes.ts"
import * as Server from "./support/Server.ts"

const requests = Number(process.env["REQUESTS"] ?? 500)
const seed = Number(process.env["SEED"] ?? 20_261_125)

interface JsonSchema {
  readonly $ref?: string
  readonly type?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly allOf?: ReadonlyArray<JsonSchema>
  readonly items?: JsonSchema
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: ReadonlyArray<string>
  readonly additionalProperties?: JsonSchema | boolean
  readonly minimum?: number
  readonly maximum?: number
  readonly format?: string
}

interface Operation {
  readonly path: string
  readonly method: string
  readonly parameters: ReadonlyArray<{
    readonly name: string
    readonly in: string
    readonly required: boolean
    readonly schema: JsonSchema
  }>
  readonly body: JsonSchema | undefined
  readonly statuses: ReadonlySet<number>
  readonly streams: boolean
}

/** mulberry32 */
const makeRandom = (seed: number) => {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (bound: number) => Math.floor(next() * bound)
  return {
    below,
    chance: (share: number) => next() < share,
    of: <A>(values: ReadonlyArray<A>): A => values[below(values.length)] as A
  }
}

type Random = ReturnType<typeof makeRandom>

const hostileTexts = [
  "",
  " ",
  "\0",
  "\u202e",
  "\ud800",
  "é".repeat(3_000),
  "x".repeat(200),
  "../../etc/passwd",
  "%00",
  "' OR 1=1 --",
  "<script>",
  "__proto__",
  "constructor",
  "null",
  "-1",
  "1e999",
  "2147483648",
  "NaN",
  "a,b",
  ",",
  "\r\nx: y"
]

const hostileValues: ReadonlyArray<unknown> = [
  ...hostileTexts,
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  Number.MAX_SAFE_INTEGER + 2,
  [],
  {},
  [[[[[]]]]],
  { __proto__: null, toString: 1 }
]

const textOf = (random: Random): string =>
  random.chance(0.3)
    ? random.of(hostileTexts)
    : random.of(["cpu", "disk", "load", "12 %", agentIdOf(random.below(20))])

/** A value of the schema, or here and there one that is not. */
const valueOf = (random: Random, document: Document, schema: JsonSchema, wrong: number): unknown => {
  if (random.chance(wrong)) return random.of(hostileValues)
  const {
    additionalProperties,
    allOf,
    anyOf,
    items,
    maximum = 1e9,
    minimum = 0,
    properties,
    required
  } = schema
  if (schema.$ref !== undefined) {
    return valueOf(
      random,
      document,
      document.components.schemas[schema.$ref.split("/").at(-1) ?? ""] ?? {},
      wrong
    )
  }
  if (schema.enum !== undefined) return random.of(schema.enum)
  if (anyOf !== undefined) return valueOf(random, document, random.of(anyOf), wrong)
  switch (schema.type) {
    case "object": {
      const fields: Record<string, unknown> = {}
      for (const [name, field] of Object.entries(properties ?? {})) {
        if (required?.includes(name) || random.chance(0.6))
          fields[name] = valueOf(random, document, field, wrong)
      }
      if (typeof additionalProperties === "object") {
        for (let i = random.below(4); i > 0; i--) {
          fields[textOf(random)] = valueOf(random, document, additionalProperties, wrong)
        }
      }
      return fields
    }
    case "array":
      return Array.from({ length: random.of([0, 1, 3, 20]) }, () =>
        valueOf(random, document, items ?? {}, wrong)
      )
    case "integer":
    case "number":
      return random.chance(0.2)
        ? random.of([minimum, maximum])
        : minimum + random.below(Math.max(1, maximum - minimum))
    case "boolean":
      return random.chance(0.5)
    default:
      return allOf?.some(({ format }) => format === "uuid") || random.chance(0.3)
        ? agentIdOf(random.below(20))
        : textOf(random)
  }
}

interface Document {
  readonly paths: Readonly<
    Record<
      string,
      Readonly<
        Record<
          string,
          {
            readonly parameters?: Operation["parameters"]
            readonly requestBody?: {
              readonly content: Readonly<Record<string, { readonly schema: JsonSchema }>>
            }
            readonly responses: Readonly<
              Record<string, { readonly content?: Readonly<Record<string, unknown>> }>
            >
          }
        >
      >
    >
  >
  readonly components: { readonly schemas: Readonly<Record<string, JsonSchema>> }
}

const operationsOf = (document: Document): ReadonlyArray<Operation> =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { parameters = [], requestBody, responses }]) => ({
      path,
      method: method.toUpperCase(),
      parameters,
      body: requestBody?.content["application/json"]?.schema,
      statuses: new Set(Object.keys(responses).map(Number)),
      streams: responses["200"]?.content?.["text/event-stream"] !== undefined
    }))
  )

const requestOf = (random: Random, document: Document, { body, method, parameters, path }: Operation) => {
  const wrong = random.of([0, 0, 0.02, 0.2])
  const query = new URLSearchParams()
  const headers: Record<string, string> = {}
  let address = path
  for (const { in: where, name, required, schema } of parameters) {
    if (!required && random.chance(0.5)) continue
    if (required && random.chance(wrong)) continue
    const given = valueOf(random, document, schema, wrong)
    const value = typeof given === "string" ? given : JSON.stringify(given)
    if (where === "query") query.append(name, value)
    else if (where === "header") headers[name] = encodeURIComponent(value.toWellFormed())
    else {
      const id = random.chance(0.8) ? agentIdOf(random.below(20)) : value
      address = address.replace(`{${name}}`, encodeURIComponent(id.toWellFormed()))
    }
  }
  if (random.chance(wrong)) query.append(random.of(hostileTexts), random.of(hostileTexts))
  const init: RequestInit = { method, headers }
  if (body !== undefined) {
    headers["content-type"] = random.chance(wrong)
      ? random.of(["text/plain", "", "application/xml"])
      : "application/json"
    const text = JSON.stringify(valueOf(random, document, body, wrong))
    init.body = random.chance(wrong) ? text.slice(0, random.below(text.length)) : text
  }
  return { path: `${address}${query.size === 0 ? "" : `?${query}`}`, init }
}

it.live(
  `${requests} requests from seed ${seed}`,
  () =>
    Effect.gen(function* () {
      const unhandled: Array<unknown> = []
      const onUnhandled = (reason: unknown) => void unhandled.push(reason)
      process.on("unhandledRejection", onUnhandled)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.off("unhandledRejection", onUnhandled)))

      const server = yield* Server.start({ batcher: { interval: "100 millis" } })
      const document: Document = yield* Server.json(yield* server.fetch("/openapi.json"))
      const operations = operationsOf(document)
      const random = makeRandom(seed)
      const plan = Array.from({ length: requests }, () => {
        const operation = random.of(operations)
        return { operation, ...requestOf(random, document, operation) }
      })
      const counts = new Map<number, number>()
      const succeeded = new Set<string>()

      yield* Effect.forEach(
        plan,
        Effect.fnUntraced(function* ({ init, operation, path }) {
          const controller = new AbortController()
          const response = yield* server.fetch(path, { ...init, signal: controller.signal })
          const what = `${response.status} to ${init.method} ${path.slice(0, 200)} ${init.body ?? ""}`
          counts.set(response.status, (counts.get(response.status) ?? 0) + 1)
          assert.isBelow(response.status, 500, what)
          // Of an address that is not one, and of one that is too long, no operation knows.
          const isKnown = operation.statuses.has(response.status) || [404, 431].includes(response.status)
          assert.isTrue(isKnown, what)
          if (response.status < 300) {
            succeeded.add(`${operation.method} ${operation.path}`)
            if (operation.streams) return controller.abort()
          }
          const text = yield* Effect.promise(() => response.text())
          if (response.status < 400) return
          const { _tag, message } = JSON.parse(text)
          assert.isString(_tag, what)
          assert.match(message, /^[^\n]{5,300}$/, what)
          assert.notMatch(text, /node_modules|\bat file:/, what)
        }),
        { concurrency: 8, discard: true }
      )

      assert.deepStrictEqual(unhandled, [])
      // A fuzz that only ever gets refused, or never, would find nothing.
      assert.deepStrictEqual(
        operations.map(({ method, path }) => `${method} ${path}`).filter((name) => !succeeded.has(name)),
        []
      )
      assert.isAbove(counts.get(400) ?? 0, requests / 20)
      const { metadata } = server
      yield* metadata.flush
      const account = yield* metadata.accounting
      assert.isAbove(account.written, 0)
      assert.strictEqual(account.pending + account.queued + account.inFlight, 0)
    }).pipe(Effect.scoped),
  60_000
)
