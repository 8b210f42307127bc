import { textOf } from "./textOf.ts"

/** What the innermost error says: a driver wraps what the server said. */
export const innermostMessage = (cause: unknown): string => {
  if (!(cause instanceof Error)) return textOf(cause)
  let innermost = cause
  // A chain of causes may lead back to where it began.
  for (let depth = 0; depth < 32 && innermost.cause instanceof Error; depth++) innermost = innermost.cause
  return innermost.message
}
