/**
 * The token one has for the server, kept for this tab only.
 *
 * @since 0.1.0
 */
import { byId, setText } from "./Dom.ts"

const name = "token"

/** The token of this tab. */
export const current = (): string | undefined => sessionStorage.getItem(name) ?? undefined

/** The server knows no such token, or no longer. */
export class Unauthorized extends Error {}

const forget = (): void => sessionStorage.removeItem(name)

export interface Asking {
  /** Asks for a token, and says why the last one would not do. */
  readonly ask: (why: string | undefined) => void
  /** Whether the page is asking. */
  readonly isAsking: () => boolean
  /** Whether there is a token that can be forgotten. */
  readonly show: () => void
}

/** `onToken` is told when there is another token, or none any more. */
export const make = (onToken: () => void): Asking => {
  const dialog = byId("token", "dialog")
  const form = byId("token-form", "form")
  const input = byId("token-input", "input")
  const why = byId("token-why", "p")
  const forgetButton = byId("token-forget", "button")

  let asking = false

  const show = () => {
    forgetButton.hidden = current() === undefined
  }

  // Without a token there is nothing to see.
  dialog.addEventListener("close", () => {
    if (asking) dialog.showModal()
  })
  form.addEventListener("submit", (event) => {
    event.preventDefault()
    const token = input.value.trim()
    if (token === "") return
    sessionStorage.setItem(name, token)
    input.value = ""
    asking = false
    dialog.close()
    show()
    onToken()
  })
  forgetButton.addEventListener("click", () => {
    forget()
    show()
    onToken()
  })

  return {
    ask: (reason) => {
      forget()
      show()
      setText(why, reason ?? "")
      why.hidden = reason === undefined
      input.setAttribute("aria-invalid", String(reason !== undefined))
      asking = true
      if (!dialog.open) dialog.showModal()
      input.focus()
    },
    isAsking: () => asking,
    show
  }
}
