/**
 * What a client is told when its request comes to nothing: a status, a name and
 * one line. Never a stack trace, and nothing that it sent.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { HttpApiSchemaError } from "effect/http-api/HttpApiError"
import * as SchemaIssue from "effect/SchemaIssue"
import { BadRequest, BodyTooLarge, NotFound, RequestTimeout, Unavailable } from "../api/Errors.ts"

interface Refused {
  readonly _tag: string
  readonly message: string
}

const statusOf: Readonly<Record<string, number>> = {
  BadRequest: 400,
  Unauthorized: 401,
  Forbidden: 403,
  NotFound: 404,
  RequestTimeout: 408,
  BodyTooLarge: 413,
  UnsupportedMediaType: 415,
  Unavailable: 503,
  InternalError: 500
}

/**
 * A refusal as a response. The connection of a request that was not read to its
 * end is of no further use.
 *
 * @category responses
 * @since 0.1.0
 */
export const respond = ({ _tag, message }: Refused): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(
    { _tag, message },
    {
      status: statusOf[_tag] ?? 500,
      ...(_tag === "RequestTimeout" || _tag === "BodyTooLarge" ? { headers: { connection: "close" } } : {})
    }
  )

const describe = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: (issue) => {
    switch (issue._tag) {
      case "MissingKey":
        return "is missing"
      case "UnexpectedKey":
        return "is not known"
      default:
        return SchemaIssue.defaultLeafHook(issue)
    }
  }
})

const places: Readonly<Record<HttpApiSchemaError["kind"], string>> = {
  Params: "path",
  Headers: "headers",
  Query: "query",
  Payload: "body",
  Body: "answer",
  ResponseHeaders: "answer"
}

/**
 * What of a request does not match its schema: the first place, and what belongs there.
 *
 * @category conversions
 * @since 0.1.0
 */
export const badRequest = ({ cause, kind }: HttpApiSchemaError): BadRequest => {
  const [issue] = describe(cause.issue).issues
  const path = (issue?.path ?? []).map((part) => {
    const key = String(typeof part === "object" ? part.key : part)
    // A key of an object comes from the client: it is not given back at length.
    return key.length > 40 ? `${key.slice(0, 40)}…` : key
  })
  // A message may quote the input at its end, depending on how the schema was asked.
  const what = (issue?.message ?? "is not valid").replace(/(, got |\n)[\s\S]*$/, "")
  return new BadRequest({ message: `${[places[kind], ...path].join(".")}: ${what.slice(0, 200)}` })
}

/**
 * What a request that failed before or beside its handler is told.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromCause = (cause: Cause.Cause<unknown>): Refused | undefined => {
  for (const reason of cause.reasons) {
    const error = reason._tag === "Fail" ? reason.error : reason._tag === "Die" ? reason.defect : undefined
    if (!HttpServerError.isHttpServerError(error)) continue
    if (error.reason._tag === "RouteNotFound")
      return new NotFound({ message: "there is nothing at this address" })
    if (error.reason._tag === "RequestParseError") {
      return error.reason.reason === "BodyTooLarge"
        ? new BodyTooLarge({ message: "the body is too large" })
        : new BadRequest({ message: "the request cannot be read" })
    }
  }
  return undefined
}

/**
 * @category constants
 * @since 0.1.0
 */
export const stopping = new Unavailable({ message: "the server is stopping" })

/**
 * @category constants
 * @since 0.1.0
 */
export const tooSlow = new RequestTimeout({ message: "the request took too long to arrive" })

/**
 * @category constants
 * @since 0.1.0
 */
export const noAnswer = new Unavailable({ message: "there was no answer in time" })

/**
 * @category constants
 * @since 0.1.0
 */
export const internal: Refused = { _tag: "InternalError", message: "the server failed; its log says why" }
