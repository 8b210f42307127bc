import type * as Stream from "effect/Stream"
import type { AgentId } from "../../AgentId.ts"
import type { Change } from "./definition.ts"
import * as Mailbox from "./mailbox.ts"

/**
 * Agents that wait for one consumer, at most. One that falls further behind is
 * told to read everything anew, which by then costs it less than asking for
 * each.
 */
export const maxWaiting = 10_000

/** Those who want to know which agents changed, watched or not. */
export interface Changes {
  readonly size: () => number
  readonly stream: Stream.Stream<Change>
  readonly changed: (agentIds: ReadonlyArray<AgentId>) => void
  readonly resync: () => void
  readonly end: () => void
}

interface Consumer {
  readonly mailbox: Mailbox.Mailbox
  readonly waiting: Set<AgentId>
  /** Whether it is to be told to read anew; stands for all that waits. */
  mustResync: boolean
}

export const make = (): Changes => {
  const consumers = new Set<Consumer>()
  let ended = false

  const demandResync = (consumer: Consumer): void => {
    consumer.mustResync = true
    consumer.waiting.clear()
  }

  const take = (consumer: Consumer): Change | undefined => {
    if (consumer.mustResync) {
      consumer.mustResync = false
      return { _tag: "Resync" }
    }
    if (consumer.waiting.size === 0) return undefined
    const agentIds = Array.from(consumer.waiting)
    consumer.waiting.clear()
    return { _tag: "Changed", agentIds }
  }

  return {
    size: () => consumers.size,
    stream: Mailbox.stream((mailbox) => {
      // What changed before it came, it has to read.
      const consumer: Consumer = { mailbox, waiting: new Set(), mustResync: true }
      consumers.add(consumer)
      if (ended) mailbox.end()
      return { take: () => take(consumer), close: () => consumers.delete(consumer) }
    }),
    changed: (agentIds) => {
      for (const consumer of consumers) {
        // What changes after it was told to read anew may still be missing from what it reads.
        for (const agentId of agentIds) consumer.waiting.add(agentId)
        if (consumer.waiting.size > maxWaiting) demandResync(consumer)
        consumer.mailbox.wake()
      }
    },
    resync: () => {
      for (const consumer of consumers) {
        demandResync(consumer)
        consumer.mailbox.wake()
      }
    },
    end: () => {
      ended = true
      for (const { mailbox } of consumers) mailbox.end()
    }
  }
}
