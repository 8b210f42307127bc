export interface Summary {
  readonly median: number
  readonly min: number
  readonly max: number
  readonly samples: ReadonlyArray<number>
}

export const summarize = (samples: ReadonlyArray<number>): Summary => {
  const sorted = samples.toSorted((a, b) => a - b)
  const at = (i: number) => sorted[i] ?? Number.NaN
  const middle = (sorted.length - 1) / 2
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    min: at(0),
    max: at(sorted.length - 1),
    samples
  }
}

/** The ratio of two contestants, taken within each round, where the machine was the same for both. */
export const ratio = (over: ReadonlyArray<number>, under: ReadonlyArray<number>): Summary =>
  summarize(over.map((value, round) => value / (under[round] ?? Number.NaN)))

/** Nanoseconds of CPU, of all threads of this process, that something takes. */
export const cpuTime = async (run: () => unknown): Promise<number> => {
  const before = process.cpuUsage()
  await run()
  const { system, user } = process.cpuUsage(before)
  return (user + system) * 1e3
}
