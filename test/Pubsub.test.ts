import * as Layer from "effect/Layer"
import * as Pubsub from "../src/Pubsub.ts"
import { PubsubUnderTest, pubsubSuite } from "./conformance/PubsubSuite.ts"

pubsubSuite("in memory", Layer.effect(PubsubUnderTest, Pubsub.makeMemory))
