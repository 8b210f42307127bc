import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Pubsub from "../src/Pubsub.ts"
import { PubsubUnderTest, pubsubSuite } from "./conformance/PubsubSuite.ts"

pubsubSuite(
  "in memory",
  Layer.effect(
    PubsubUnderTest,
    Effect.map(Pubsub.makeMemory, ({ pubsub, resync }) => ({
      pubsub,
      elsewhere: pubsub,
      cut: resync,
      crash: resync,
      restart: resync,
      hang: resync
    }))
  )
)
