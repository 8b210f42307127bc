import type * as Stream from "effect/Stream"
import type { AgentId } from "../../AgentId.ts"
import type { Cell, Cells } from "./cells.ts"
import type { View } from "./definition.ts"
import * as Facts from "./facts.ts"
import * as Mailbox from "./mailbox.ts"

/** What one watcher is to be shown of what is held, if that is anything new to it. */
const picker = (keys: ReadonlyArray<string> | undefined): ((held: View | undefined) => View | undefined) => {
  const wanted = keys === undefined ? undefined : new Set(keys)
  let seen: View | undefined
  let shown: View | undefined
  return (held) => {
    if (held === seen || held === undefined) return undefined
    seen = held
    // All who watch an agent without a filter share one view of it.
    if (wanted === undefined) return held
    const facts = held.facts.filter(({ key }) => wanted.has(key))
    if (shown?.staleSince === held.staleSince && shown !== undefined && Facts.areSame(shown.facts, facts)) {
      return undefined
    }
    shown = { agentId: held.agentId, facts, staleSince: held.staleSince }
    return shown
  }
}

/** Everything of one agent, or what is under the given keys, at once and whenever it has changed. */
export const watch = (options: {
  readonly cells: Cells
  readonly agentId: AgentId
  readonly keys: ReadonlyArray<string> | undefined
  /** Called with every watcher that has joined. */
  readonly onJoin: (cell: Cell, mailbox: Mailbox.Mailbox) => void
}): Stream.Stream<View> =>
  Mailbox.stream((mailbox) => {
    const pick = picker(options.keys)
    const cell = options.cells.join(options.agentId, mailbox)
    options.onJoin(cell, mailbox)
    return {
      take: () => pick(cell.view),
      close: () => options.cells.leave(cell, mailbox)
    }
  })
