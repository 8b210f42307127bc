import * as Layer from "effect/Layer"
import * as Store from "../src/Store.ts"
import { StoreUnderTest, storeSuite } from "./conformance/StoreSuite.ts"

storeSuite("in memory", Layer.effect(StoreUnderTest, Store.makeMemory))
