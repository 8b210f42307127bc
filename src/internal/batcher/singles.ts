/** How many single rows have to fail, and none to succeed, before it is the store's trouble. */
export const singlesOfAnOutage = 3

/** Which rows are tried alone: of different groups where there are as many, and others at each turn. */
export const singlesOf = (
  positions: ReadonlyArray<number>,
  { groups, turn }: { readonly groups: ReadonlyArray<string>; readonly turn: number }
): ReadonlyArray<number> => {
  // The golden ratio spreads the starting points of successive turns evenly.
  const start = Math.floor(((turn * 0.618_033_988_75) % 1) * positions.length)
  const singles: Array<number> = []
  const rotated = [...positions.slice(start), ...positions.slice(0, start)]
  for (const ofOtherGroups of [true, false]) {
    for (const position of rotated) {
      if (singles.length === singlesOfAnOutage) return singles
      const isTaken = singles.some((single) => single === position)
      const isOther = singles.every((single) => groups[single] !== groups[position])
      if (!isTaken && (isOther || !ofOtherGroups)) singles.push(position)
    }
  }
  return singles
}
