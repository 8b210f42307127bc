/**
 * Computes what is needed for so many agents, from what `limits.ts` measured and
 * from the assumptions below, and prints the tables of the scaling page:
 *
 *   node scripts/bench/scaling/compute.ts [--write]
 *
 * `--write` puts them into `SCALING.md`, between its marks.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Results } from "./limits.ts"
import type { Announce, Measured } from "./writes.ts"

const read = (name: string): unknown =>
  JSON.parse(readFileSync(join(import.meta.dirname, "../results", name), "utf8"))

const results = read("scaling.json") as Results

/** What the agents do. Change it and run this again. */
const assumed = {
  factsPerAgent: 10,
  /** Seconds between two reports of an agent. */
  reportEvery: 10,
  /** Seconds between two rows of statistics of an agent, and how long they are kept. */
  statsEvery: 60,
  statsKept: 86_400,
  /** Of the facts, those that say what they said before; with `unchanged` of a minute. */
  equalShare: 0.7,
  unchanged: 60,
  batchSize: 500,
  statsBatchSize: 1_024,
  /** How busy one wants processors to be. */
  busy: 0.5,
  /** Of one database server. */
  cores: 32,
  /** Bytes of write-ahead log that one server and its standbys take per second. */
  walLimit: 200e6,
  /** Connections of a replica: a write of facts, one of statistics, a read, a notification, and the listener. */
  connections: 5
}

const sample = (announce: Announce, factsPerWrite: number, writers: number) => {
  const found = results.writes.find(
    (measured: Measured) =>
      measured.announce === announce &&
      measured.factsPerWrite === factsPerWrite &&
      measured.writers === writers
  )
  if (found === undefined)
    throw new Error(`not measured: ${announce}, ${factsPerWrite} facts, ${writers} writers`)
  return found.sample
}

const batched = sample("NOTIFY", assumed.batchSize, 4)
const notifyLimit = sample("NOTIFY", assumed.factsPerAgent, 16).writesPerSecond

const need = (agents: number, withUnchanged: boolean) => {
  const { busy, equalShare, factsPerAgent, reportEvery, statsEvery, statsKept, unchanged } = assumed
  const facts = (agents * factsPerAgent) / reportEvery
  // Of the equal ones, one per `unchanged` is written.
  const written = withUnchanged ? 1 - equalShare + equalShare * Math.min(1, reportEvery / unchanged) : 1
  const rows = facts * written
  const statsRows = agents / statsEvery
  const replicaCores = (facts * batched.clientCpu) / 1e6
  const replicas = Math.max(2, Math.ceil(replicaCores / busy))
  const serverCores = (rows * batched.serverCpu + statsRows * results.stats.serverCpu) / 1e6
  const wal = rows * batched.wal + statsRows * results.stats.wal
  const notifications = rows / assumed.batchSize
  const { metadata, stats } = results.sizes
  return {
    facts,
    rows,
    statsRows,
    replicas,
    connections: replicas * assumed.connections,
    serverCores,
    wal,
    notifications,
    ofNotify: notifications / notifyLimit,
    delivered: notifications * replicas,
    metadataTable: agents * factsPerAgent * metadata.table,
    metadataIndexes: agents * factsPerAgent * metadata.indexes,
    statsBytes: statsRows * statsKept * (stats.table + stats.indexes),
    databases: Math.max(Math.ceil(serverCores / (assumed.cores * busy)), Math.ceil(wal / assumed.walLimit))
  }
}

type Need = ReturnType<typeof need>

const figure = (value: number): string =>
  value >= 10 || Number.isInteger(value) ? Math.round(value).toLocaleString("en-US") : value.toPrecision(2)

const bytes = (value: number): string => {
  const units = ["B", "KB", "MB", "GB", "TB"]
  const unit = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)))
  return `${figure(value / 1_000 ** unit)} ${units[unit]}`
}

const lines: ReadonlyArray<readonly [what: string, of: (need: Need) => string, formula: string]> = [
  ["facts reported per second", ({ facts }) => figure(facts), "F = agents × facts ÷ time between reports"],
  [
    "rows written per second",
    ({ rows }) => figure(rows),
    "R = F, or with `unchanged` F × (1 − e + e × t ÷ u)"
  ],
  ["rows of statistics per second", ({ statsRows }) => figure(statsRows), "S = agents ÷ time between them"],
  ["replicas, at least 2", ({ replicas }) => figure(replicas), "F × c ÷ b"],
  ["connections", ({ connections }) => figure(connections), "5 × replicas"],
  [
    "processors of the database, all of their time",
    ({ serverCores }) => figure(serverCores),
    "R × s + S × s′"
  ],
  ["write-ahead log per second", ({ wal }) => bytes(wal), "R × w + S × w′"],
  ["notifications per second", ({ notifications }) => figure(notifications), "R ÷ 500"],
  [
    "over what `NOTIFY` takes here",
    ({ ofNotify }) => figure(ofNotify),
    "notifications ÷ n; from about 0.5 on: Redis"
  ],
  ["deliveries per second", ({ delivered }) => figure(delivered), "notifications × replicas"],
  ["metadata: table", ({ metadataTable }) => bytes(metadataTable), "agents × facts × m"],
  ["metadata: index", ({ metadataIndexes }) => bytes(metadataIndexes), "agents × facts × m′"],
  ["statistics of a day, with indexes", ({ statsBytes }) => bytes(statsBytes), "S × 86,400 × (d + d′)"],
  [
    "database servers",
    ({ databases }) => figure(databases),
    "the larger of processors ÷ (32 × b) and log ÷ 200 MB, rounded up"
  ]
]

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map((_, column) => (column === 0 ? "---" : "---:")), ...rows]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n")

const measuredTable = table(
  [
    "facts a write",
    "announced",
    ...[1, 4, 16].flatMap((writers) => [`${writers} writers: writes/s`, "facts/s"]),
    "server s/M",
    "client s/M",
    "WAL B/fact"
  ],
  [assumed.factsPerAgent, assumed.batchSize].flatMap((factsPerWrite) =>
    (["none", "NOTIFY", "Redis"] as const)
      .filter((announce) => results.writes.some((measured) => measured.announce === announce))
      .map((announce) => {
        const four = sample(announce, factsPerWrite, 4)
        return [
          `${factsPerWrite}`,
          announce === "none" ? "not" : announce,
          ...[1, 4, 16].flatMap((writers) => {
            const { factsPerSecond, writesPerSecond } = sample(announce, factsPerWrite, writers)
            return [figure(writesPerSecond), figure(factsPerSecond)]
          }),
          four.serverCpu.toFixed(1),
          four.clientCpu.toFixed(1),
          figure(four.wal)
        ]
      })
  )
)

const replicasTable = table(
  ["replicas on one database", "facts/s, all together", "server s/M", "lost"],
  results.replicas.map(({ factsPerSecond, failed, replicas, serverCpu }) => [
    `${replicas}`,
    figure(factsPerSecond),
    serverCpu.toFixed(1),
    `${failed}`
  ])
)

const watchersTable = table(
  [
    "watchers in one process",
    "shown/s",
    "`SELECT`s/s",
    "commit to shown: p50",
    "p99",
    "event loop late, p99",
    "processors",
    "RSS"
  ],
  results.watchers.map(({ sample, watchers }) => {
    const ms = (value: number | null) => (value === null ? "–" : `${Math.round(value)} ms`)
    return [
      watchers.toLocaleString("en-US"),
      figure(Math.round(sample.emissions)),
      sample.selects.toFixed(1),
      ms(sample.p50),
      ms(sample.p99),
      ms(sample.loopP99),
      sample.cpu.toFixed(2),
      `${Math.round(sample.megabytes)} MB`
    ]
  })
)

const { metadata, stats } = results.sizes
const constants = table(
  ["", "measured", "what"],
  [
    ["c", `${batched.clientCpu.toFixed(1)} s`, "a replica's processor per million facts, batched, announced"],
    ["s", `${batched.serverCpu.toFixed(1)} s`, "the server's processor per million facts, the same"],
    [
      "s′",
      `${results.stats.serverCpu.toFixed(1)} s`,
      "the server's processor per million rows of statistics"
    ],
    [
      "w, w′",
      `${figure(batched.wal)} B, ${figure(results.stats.wal)} B`,
      "write-ahead log per fact, and per row of statistics"
    ],
    [
      "m, m′",
      `${figure(metadata.table)} B, ${figure(metadata.indexes)} B`,
      "a fact in the table, and in its index"
    ],
    [
      "d, d′",
      `${figure(stats.table)} B, ${figure(stats.indexes)} B`,
      "a row of statistics in the table, and in its indexes"
    ],
    ["n", `${figure(notifyLimit)}/s`, "commits with `NOTIFY` by 16 writers, a report each"]
  ]
)

const sizes = [1_000, 100_000, 10_000_000]
const computed = table(
  [
    "",
    ...sizes.flatMap((agents) => [`${agents.toLocaleString("en-US")} agents`, "with `unchanged`"]),
    "formula"
  ],
  lines.map(([what, of, formula]) => [
    what,
    ...sizes.flatMap((agents) => [of(need(agents, false)), of(need(agents, true))]),
    formula
  ])
)

const parts: Readonly<Record<string, string>> = {
  measured: `Measured ${results.when}.\n\n${measuredTable}\n\n${replicasTable}\n\n${watchersTable}\n\n${constants}`,
  computed
}

for (const [name, part] of Object.entries(parts)) console.log(`${name}:\n\n${part}\n`)

if (process.argv.includes("--write")) {
  const page = join(import.meta.dirname, "../SCALING.md")
  const text = Object.entries(parts).reduce(
    (text, [name, part]) => {
      const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
      const [from, to] = [text.indexOf(begin), text.indexOf(end)]
      if (from < 0 || to < from) throw new Error(`SCALING.md has no marks for ${name}`)
      return `${text.slice(0, from + begin.length)}\n\n${part}\n\n${text.slice(to)}`
    },
    readFileSync(page, "utf8")
  )
  writeFileSync(page, text)
}
