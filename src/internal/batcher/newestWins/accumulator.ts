import type { Accumulator, Environment } from "../accumulator.ts"
import { admit } from "./admit.ts"
import { forget, forgetWritten, giveUp, oldest } from "./end.ts"
import { fold } from "./fold.ts"
import { settle } from "./settle.ts"
import { type NewestWins, State } from "./state.ts"
import { ready, take, takeRefused } from "./take.ts"

/** Keeps the newest record per group and key: a `HashMap` of groups, each with the records of its newest report. */
export const make = <A>(definition: NewestWins<A>, environment: Environment<A>): Accumulator<A> => {
  const state = new State(definition, environment)
  return {
    commonKeys: () => state.commonKeys,
    fold: (report) => fold(state, report),
    admit: (report) => admit(state, report),
    ready: () => ready(state),
    take: (max) => take(state, max),
    hasRefusedDue: () => state.refused.hasDue(environment.elapsed()),
    takeRefused: (max) => takeRefused(state, max),
    settle: (batch, outcome) => settle(state, batch, outcome),
    forget: (group) => forget(state, group),
    forgetWritten: (group) => forgetWritten(state, group),
    giveUp: () => giveUp(state),
    oldest: () => oldest(state)
  }
}
