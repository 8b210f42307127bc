/**
 * A typed client of the HTTP API, made from the same value as the server.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Sse from "effect/encoding/Sse"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpApiClient from "effect/http-api/HttpApiClient"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { Api } from "./Api.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** For example `http://127.0.0.1:3000`. */
  readonly url: string
  readonly token?: Redacted.Redacted | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export type Client = Effect.Success<ReturnType<typeof make>>

/**
 * A method for every endpoint: `client.report.metadata({ params, query, payload })`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ token, url }: Options) =>
  HttpApiClient.make(Api, {
    transformClient: HttpClient.mapRequest((request) => {
      const addressed = HttpClientRequest.prependUrl(request, url.replace(/\/$/, ""))
      return token === undefined ? addressed : HttpClientRequest.bearerToken(addressed, token)
    })
  })

/**
 * The connection of a stream is gone and will be tried again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lost {
  readonly _tag: "Lost"
  readonly why: string
}

/**
 * An event that arrived.
 *
 * @category models
 * @since 0.1.0
 */
export interface Arrived<Event> {
  readonly _tag: "Arrived"
  readonly event: Event
}

const pause: Duration.Input = "1 second"

/**
 * Opens a stream of events again whenever it ends, after the last event that
 * came, and tells of each loss. Only the first attempt may fail.
 *
 * @category streams
 * @since 0.1.0
 */
export const follow = <
  Event extends { readonly id?: string | undefined },
  E extends Error,
  E2 extends Error | Sse.Retry
>(
  open: (lastEventId: string | undefined) => Effect.Effect<Stream.Stream<Event, E2>, E>
): Stream.Stream<Arrived<Event> | Lost, E> => {
  let lastEventId: string | undefined

  const events = (stream: Stream.Stream<Event, E2>): Stream.Stream<Arrived<Event> | Lost> =>
    stream.pipe(
      Stream.map((event) => {
        lastEventId = event.id ?? lastEventId
        return { _tag: "Arrived", event } as const
      }),
      Stream.catch((error) => again(Sse.Retry.is(error) ? error.duration : pause, "the stream ended")),
      Stream.concat(Stream.suspend(() => again(pause, "the stream ended")))
    )

  const again = (after: Duration.Input, why: string): Stream.Stream<Arrived<Event> | Lost> =>
    Stream.concat(
      Stream.succeed({ _tag: "Lost", why } as const),
      Effect.sleep(after).pipe(
        Effect.andThen(open(lastEventId)),
        Effect.map(events),
        Effect.catch((error) => Effect.succeed(again(pause, error.message))),
        Stream.unwrap
      )
    )

  return Stream.unwrap(
    Effect.map(
      Effect.suspend(() => open(undefined)),
      events
    )
  )
}
