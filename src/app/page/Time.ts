/**
 * Times as the server sees them, and how they are written.
 *
 * @since 0.1.0
 */

const second = 1_000
let offset = Number.NEGATIVE_INFINITY

/**
 * Learns the server's clock from an event that has just arrived. Ages must not
 * depend on the viewer's clock, which may be minutes off.
 */
export const learn = (serverNow: number): void => {
  const learned = serverNow - Date.now()
  // The event that took the shortest way tells best. A jump is a clock that was set.
  offset = Math.abs(learned - offset) < second ? Math.max(offset, learned) : learned
}

/** The time at the server. */
export const now = (): number => Date.now() + (Number.isFinite(offset) ? offset : 0)

const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

/** `3 s`, `2 min`, `5 h`, `4 d`. */
export const duration = (millis: number): string => {
  if (millis < minute) return `${Math.max(0, Math.floor(millis / second))} s`
  if (millis < hour) return `${Math.floor(millis / minute)} min`
  if (millis < day) return `${Math.floor(millis / hour)} h`
  return `${Math.floor(millis / day)} d`
}

/** `3 s ago`. */
export const age = (at: number): string => `${duration(now() - at)} ago`

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" })
const dated = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" })

/** The time of day in the viewer's own zone, with the date if it is not today's. */
export const timeOfDay = (at: number): string => (now() - at < day / 2 ? clock : dated).format(at)

/** Date and time in the viewer's own zone. */
export const dateAndTime = (at: number): string => dated.format(at)
