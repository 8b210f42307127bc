/** What the innermost error says: a driver wraps what the server said. */
export const innermostMessage = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  return cause.cause instanceof Error ? innermostMessage(cause.cause) : cause.message
}
