import type { Metadata } from "../../Metadata.ts"

/** The same facts by key. Stores promise no order, and most return one that needs no sorting. */
export const sorted = (facts: ReadonlyArray<Metadata>): ReadonlyArray<Metadata> => {
  for (let i = 1; i < facts.length; i++) {
    if ((facts[i - 1] as Metadata).key > (facts[i] as Metadata).key) return facts.toSorted(byKey)
  }
  return facts
}

const byKey = (a: Metadata, b: Metadata): number => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)

/** Whether two sorted lists say the same. */
export const areSame = (some: ReadonlyArray<Metadata>, others: ReadonlyArray<Metadata>): boolean => {
  if (some.length !== others.length) return false
  for (let i = 0; i < some.length; i++) {
    const [one, other] = [some[i] as Metadata, others[i] as Metadata]
    if (
      one.collectedAt.epochMilliseconds !== other.collectedAt.epochMilliseconds ||
      one.value !== other.value ||
      one.error !== other.error ||
      one.key !== other.key
    )
      return false
  }
  return true
}
