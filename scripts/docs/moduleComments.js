/**
 * A plugin for TypeDoc: the first docstring of a file is its module's.
 *
 * TypeDoc takes it for that only where it says `@module`; Effect's sources and
 * this library's do not.
 */
import { Comment, Converter, MinimalSourceFile, ReflectionKind } from "typedoc"

/** The text of a docstring that begins a file, without its tags. */
const moduleDocstring = (source) => {
  const docstring = /^\/\*\*\n([\s\S]*?)\n \*\//.exec(source)?.[1] ?? ""
  return docstring
    .replaceAll(/^ \* ?/gm, "")
    .replaceAll(/^@.*$/gm, "")
    .trim()
}

export const load = ({ converter, files }) => {
  converter.on(Converter.EVENT_CREATE_DECLARATION, (context, reflection) => {
    if (reflection.kind !== ReflectionKind.Module || reflection.comment !== undefined) return
    const file = context.getSymbolFromReflection(reflection)?.declarations?.[0]?.getSourceFile()
    const text = moduleDocstring(file?.text ?? "")
    if (file === undefined || text === "") return
    const { content } = converter.parseRawComment(new MinimalSourceFile(text, file.fileName), files)
    reflection.comment = new Comment(content)
  })
}
