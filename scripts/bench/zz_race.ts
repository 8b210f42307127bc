import { race } from "./ingest.ts"
import { limit } from "./peers.ts"
import { using, workingTree } from "./ours.ts"
import { load } from "./library.ts"
import { w1, w2 } from "./workload.ts"
const oldies = using(await load("/work/wt/oldmain/src"))
for (const w of process.argv[2] === "w2" ? [w2] : process.argv[2]==="both" ? [w1, w2] : [w1]) {
  const s = await race([limit, workingTree.addUnsafe, {...oldies.addUnsafe, name: "old"}], w, true)
  const base = s[limit.name].nsPerFact
  for (const k in s) console.log(k, s[k].nsPerFact.toFixed(1), (s[k].nsPerFact/base).toFixed(2), s[k].rowsPerFact)
}
