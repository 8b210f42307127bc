/** The pages in Markdown, and what stands in their code blocks. */
import * as fs from "node:fs"
import * as path from "node:path"

export const repository = path.resolve(import.meta.dirname, "../..")

export const read = (file: string): string => fs.readFileSync(path.join(repository, file), "utf8")

/** Every page of the repository. */
export const pages: ReadonlyArray<string> = fs
  .globSync(["*.md", "scripts/*/*.md", "src/**/*.md", "test/**/*.md"], { cwd: repository })
  .map((file) => file.split(path.sep).join("/"))
  .sort()

export interface Block {
  /** Where it stands: file and line of its opening fence, from 1. */
  readonly name: string
  readonly line: number
  readonly language: string
  /** False for a block marked `no-run`: it needs what a test does not have. */
  readonly runs: boolean
  readonly lines: ReadonlyArray<string>
}

/** The code blocks of a page or of the docstrings of a source. */
export const blocksOf = (file: string, text: string): ReadonlyArray<Block> => {
  const blocks: Array<Block> = []
  const lines = text.split(/\r?\n/)
  for (let start = 0; start < lines.length; start++) {
    const fence = /^(\s*(?:\* )?)```(\w*)(?: (.*))?$/.exec(lines[start] ?? "")
    if (fence === null) continue
    const [, indentation = "", language = "", marks = ""] = fence
    const dedent = (line: string) => line.slice(indentation.length)
    const length = lines.slice(start + 1).findIndex((line) => dedent(line).trimEnd() === "```")
    if (length === -1) throw new Error(`${file}:${start + 1}: the block does not end`)
    blocks.push({
      name: `${file}:${start + 1}`,
      line: start + 1,
      language,
      runs: !marks.split(" ").includes("no-run"),
      lines: lines.slice(start + 1, start + 1 + length).map(dedent)
    })
    start += length + 1
  }
  return blocks
}

/** The links of a page that lead nowhere in the repository. */
export const deadLinksOf = (file: string, text: string): ReadonlyArray<string> =>
  Array.from(text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g), ([, target = ""]) => target).filter(
    (target) => !/^[a-z]+:/.test(target) && !fs.existsSync(path.join(repository, path.dirname(file), target))
  )
