/**
 * The identity of an agent: a UUID in its canonical form.
 *
 * The canonical form (lower case, hyphens) is what makes two spellings of one
 * agent the same key, in the batcher's map as in PostgreSQL. Decode untrusted
 * input through the schema; it accepts either case and refuses everything that
 * is no UUID.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

/**
 * A UUID of any version, lower case with hyphens.
 *
 * **Example** (Decoding an agent id)
 *
 * ```ts
 * import * as assert from "node:assert/strict"
 * import { AgentId } from "effect-metadata-batcher"
 * import * as Schema from "effect/Schema"
 *
 * const id = Schema.decodeSync(AgentId.AgentId)("3F2504E0-4F89-41D3-9A0C-0305E82C3301")
 *
 * assert.equal(id, "3f2504e0-4f89-41d3-9a0c-0305e82c3301")
 * assert.throws(() => Schema.decodeSync(AgentId.AgentId)("agent-7"))
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export const AgentId = Schema.String.pipe(
  Schema.decode(SchemaTransformation.toLowerCase()),
  Schema.check(Schema.isGUID({ expected: "a UUID" }), Schema.isLowercased()),
  Schema.brand("AgentId")
)

/**
 * @category models
 * @since 0.1.0
 */
export type AgentId = typeof AgentId.Type
