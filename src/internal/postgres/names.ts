/** Where the tables are. */
export interface Names {
  /** A schema of their own. Then the names of the tables are taken as they are, dots included. */
  readonly schema?: string | undefined
  /** Default `workspace_agent_metadata`. Without `schema`, a schema goes before it with a dot. */
  readonly metadataTable?: string | undefined
  /** Default `workspace_agent_stats`. Without `schema`, a schema goes before it with a dot. */
  readonly statsTable?: string | undefined
  /** The table that records migrations. Default `effect_metadata_batcher_migrations`, named like the others. */
  readonly migrationsTable?: string | undefined
}

/** An identifier as SQL text. */
export const quote = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`

/** A table as SQL text. */
export const quoteTable = (name: string, schema: string | undefined): string =>
  schema === undefined ? name.split(".").map(quote).join(".") : `${quote(schema)}.${quote(name)}`

export const defaultMigrationsTable = "effect_metadata_batcher_migrations"

/** The tables as SQL text. */
export const tablesOf = (names: Names | undefined) => ({
  metadata: quoteTable(names?.metadataTable ?? "workspace_agent_metadata", names?.schema),
  stats: quoteTable(names?.statsTable ?? "workspace_agent_stats", names?.schema),
  migrations: quoteTable(names?.migrationsTable ?? defaultMigrationsTable, names?.schema)
})
