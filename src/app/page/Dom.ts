/**
 * The little that the page needs to make elements.
 *
 * @since 0.1.0
 */

type Attributes = { readonly [name: string]: string | number | undefined }

const set = (element: Element, attributes: Attributes) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, String(value))
  }
}

/** Makes an HTML element. */
export const html = <Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: Array<Node | string>
): HTMLElementTagNameMap[Name] => {
  const element = document.createElement(name)
  set(element, attributes)
  element.append(...children)
  return element
}

/** Makes an SVG element. */
export const svg = <Name extends keyof SVGElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: Array<Node>
): SVGElementTagNameMap[Name] => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name)
  set(element, attributes)
  element.append(...children)
  return element
}

/** The element of `index.html` with this id. */
export const byId = <Name extends keyof HTMLElementTagNameMap>(
  id: string,
  _name: Name
): HTMLElementTagNameMap[Name] => {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`index.html has no element with the id ${id}`)
  return element as HTMLElementTagNameMap[Name]
}

/** Sets the text, unless it says that already: a screen reader is not to be told twice. */
export const setText = (element: Element, text: string): void => {
  if (element.textContent !== text) element.textContent = text
}

/** `1 fact`, `2 facts`. */
export const plural = (count: number, noun: string): string =>
  `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`
