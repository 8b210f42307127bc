import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { AgentId } from "../src/AgentId.ts"
import * as AgentIdChunks from "../src/AgentIdChunks.ts"

const agentIds = (count: number): ReadonlyArray<AgentId> =>
  Array.from({ length: count }, () => AgentId.make(crypto.randomUUID()))

// The encoding as Node does it, sharing no code with the module.
const reference = (id: string): string =>
  Buffer.from(id.replaceAll("-", ""), "hex").toString("base64").replaceAll("=", "")

const decodeAll = (payloads: ReadonlyArray<string>): ReadonlyArray<AgentId> =>
  payloads.flatMap((payload) => Result.getOrThrow(AgentIdChunks.decode(payload)))

const reasonOf = (payload: string): AgentIdChunks.AgentIdChunkErrorReason => {
  const error = Result.getOrThrow(Result.flip(AgentIdChunks.decode(payload)))
  assert.instanceOf(error, AgentIdChunks.AgentIdChunkError)
  assert.strictEqual(error.message, error.reason.message)
  return error.reason
}

const id = AgentId.make("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
const encoded = "PyUE4E+JQdOaDAMF6CwzAQ"

describe("AgentIdChunks", () => {
  it("fits PostgreSQL's NOTIFY", () => {
    assert.strictEqual(AgentIdChunks.uuidBase64Size, 22)
    assert.strictEqual(AgentIdChunks.maxPayloadSize, 8000)
    assert.strictEqual(AgentIdChunks.maxAgentIdsPerChunk, 363)
  })

  describe("encode", () => {
    it.each([
      ["00000000-0000-0000-0000-000000000000", "AAAAAAAAAAAAAAAAAAAAAA"],
      ["ffffffff-ffff-ffff-ffff-ffffffffffff", "/////////////////////w"],
      [id, encoded],
      ["00112233-4455-6677-8899-aabbccddeeff", "ABEiM0RVZneImaq7zN3u/w"],
      ["fbefbefb-efbe-fbef-befb-efbefbefbefb", "+++++++++++++++++++++w"]
    ])("%s", (uuid, expected) => {
      const actual = AgentIdChunks.encodeAgentId(AgentId.make(uuid))
      assert.strictEqual(actual, expected)
      assert.strictEqual(actual, reference(uuid))
    })

    it("reads upper case as lower case", () => {
      // What a cast brings in; the schema would have made it lower case.
      const upper = id.toUpperCase() as AgentId
      assert.strictEqual(AgentIdChunks.encodeAgentId(upper), encoded)
      assert.deepStrictEqual(decodeAll(AgentIdChunks.encode([upper])), [id])
    })

    it.each([
      [0, []],
      [1, [22]],
      [3, [66]],
      [363, [7986]],
      [364, [7986, 22]],
      [600, [7986, 5214]],
      [1000, [7986, 7986, 6028]]
    ])("%i ids in chunks", (count, sizes) => {
      const ids = agentIds(count)
      const payloads = AgentIdChunks.encode(ids)

      assert.deepStrictEqual(
        payloads.map((payload) => Buffer.byteLength(payload)),
        sizes
      )
      assert.strictEqual(payloads.join(""), ids.map(reference).join(""))
      assert.deepStrictEqual(decodeAll(payloads), ids)
    })
  })

  describe("decode", () => {
    it("takes the empty payload for no ids", () => {
      assert.deepStrictEqual(decodeAll([""]), [])
    })

    it.each([1, 21, 23, 24, 43, 7985, 7987])("refuses a length of %i", (length) => {
      assert.deepStrictEqual(reasonOf("A".repeat(length)), new AgentIdChunks.InvalidLength({ length }))
      assert.include(reasonOf("A".repeat(length)).message, String(length))
    })

    it.each(["-", "_", " ", "\n", "\r", "=", "\0", "ä", "ſ"])("refuses the character %j", (character) => {
      for (const position of [0, 21, 22, 30, 65]) {
        const payload = encoded.repeat(3)
        const damaged = payload.slice(0, position) + character + payload.slice(position + 1)
        assert.deepStrictEqual(reasonOf(damaged), new AgentIdChunks.InvalidCharacter({ character, position }))
      }
    })

    it("names a character of two code units in full", () => {
      assert.deepStrictEqual(
        reasonOf(`${"A".repeat(20)}😀`),
        new AgentIdChunks.InvalidCharacter({ character: "😀", position: 20 })
      )
    })

    it("refuses padding", () => {
      assert.deepStrictEqual(reasonOf(`${encoded}==`), new AgentIdChunks.InvalidLength({ length: 24 }))
      // Eleven padded ids are as long as twelve unpadded ones.
      assert.deepStrictEqual(
        reasonOf(`${encoded}==`.repeat(11)),
        new AgentIdChunks.InvalidCharacter({ character: "=", position: 22 })
      )
    })

    it("refuses bits beyond an id's 128", () => {
      const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
      for (const character of alphabet) {
        const payload = encoded + encoded.slice(0, -1) + character
        if (alphabet.indexOf(character) % 16 === 0) {
          assert.strictEqual(decodeAll([payload]).map(reference).join(""), payload)
        } else {
          assert.deepStrictEqual(
            reasonOf(payload),
            new AgentIdChunks.InvalidTrailingBits({ character, position: 43 })
          )
        }
      }
    })
  })

  it.prop("decodes what it encodes", { ids: Schema.Array(AgentId) }, ({ ids }) => {
    const payloads = AgentIdChunks.encode(ids)
    assert.strictEqual(payloads.join(""), ids.map(reference).join(""))
    assert.deepStrictEqual<ReadonlyArray<string>>(
      decodeAll(payloads),
      ids.map((id) => id.toLowerCase())
    )
  })

  it.prop(
    "decodes only what it would encode",
    { payload: Schema.String.check(Schema.isPattern(/^([A-Za-z0-9+/]{21}[AQgwBx]){1,3}$/)) },
    ({ payload }) => {
      const decoded = AgentIdChunks.decode(payload)
      if (Result.isSuccess(decoded)) assert.deepStrictEqual(AgentIdChunks.encode(decoded.success), [payload])
      else assert.strictEqual(decoded.failure.reason._tag, "InvalidTrailingBits")
    }
  )
})
