import { readdirSync, readFileSync } from "node:fs"

/** Clock ticks of /proc, a constant of Linux's interface to user space. */
const ticksPerSecond = 100

/** Seconds of CPU that the server has used: all its processes, and those that have ended. */
export const cpuSeconds = (postmaster: number): number | null => {
  if (process.platform !== "linux") return null
  let ticks = 0
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    let stat: string
    try {
      stat = readFileSync(`/proc/${name}/stat`, "utf8")
    } catch {
      continue // It has ended since.
    }
    // What follows the parenthesised name: state, parent, …, utime, stime, cutime and cstime.
    const fields = stat
      .slice(stat.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number)
    const [, parent] = fields
    const [user = 0, system = 0, endedUser = 0, endedSystem = 0] = fields.slice(11)
    if (Number(name) === postmaster) ticks += user + system + endedUser + endedSystem
    else if (parent === postmaster) ticks += user + system
  }
  return ticks / ticksPerSecond
}

/** The process of the server whose data is in this directory. */
export const postmasterOf = (dataDirectory: string): number =>
  Number.parseInt(readFileSync(`${dataDirectory}/postmaster.pid`, "utf8"), 10)
