/**
 * Everything that needs nothing but `effect`, a namespace per module.
 *
 * Modules for a database or a broker (`PgStore`, `PgPubsub`, `PgMigrations`,
 * `PgRetention`, `RedisPubsub`) are imported by path, as in
 * `import * as PgStore from "effect-metadata-batcher/PgStore"`.
 *
 * @since 0.1.0
 */

export * as AgentId from "./AgentId.ts"
export * as AgentIdChunks from "./AgentIdChunks.ts"
export * as AgentStats from "./AgentStats.ts"
export * as Batcher from "./Batcher.ts"
export * as BatcherMetrics from "./BatcherMetrics.ts"
export * as Metadata from "./Metadata.ts"
export * as MetadataBatcher from "./MetadataBatcher.ts"
export * as MetadataWatcher from "./MetadataWatcher.ts"
export * as Pubsub from "./Pubsub.ts"
export * as PubsubMetrics from "./PubsubMetrics.ts"
export * as RetentionMetrics from "./RetentionMetrics.ts"
export * as StatsBatcher from "./StatsBatcher.ts"
export * as Store from "./Store.ts"
export * as WatcherMetrics from "./WatcherMetrics.ts"
