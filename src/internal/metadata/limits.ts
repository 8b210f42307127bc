/** Characters of a key at most, as in the table of Coder 2.31. */
export const maxKeyLength = 127

/** Characters of a value or an error at most, as in the table of Coder 2.31. */
export const maxTextLength = 65_535

/** Whether a text has more characters than `maxLength`. PostgreSQL counts code points, of which there are never more than UTF-16 units. */
export const isTooLong = (text: string, maxLength: number): boolean =>
  text.length > maxLength && codePoints(text) > maxLength

const codePoints = (text: string): number => {
  let count = 0
  for (const _ of text) count++
  return count
}
