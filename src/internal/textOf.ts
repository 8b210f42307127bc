/** Anything as text. What cannot be made one must not throw where an error is being described. */
export const textOf = (value: unknown): string => {
  try {
    return String(value)
  } catch {
    return typeof value
  }
}
