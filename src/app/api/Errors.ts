/**
 * Why a request was refused: a status, a name and one line.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/** A line of a few words. It says what is wrong and never quotes what was sent. */
const message = Schema.String

/**
 * The request is not one of those the API knows: a bad id, a missing field, a
 * number out of range, no JSON.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadRequest extends Schema.TaggedError<BadRequest>()(
  "BadRequest",
  { message },
  { httpApiStatus: 400 }
) {}

/**
 * No token, or one that is not valid (any more).
 *
 * @category errors
 * @since 0.1.0
 */
export class Unauthorized extends Schema.TaggedError<Unauthorized>()(
  "Unauthorized",
  { message },
  { httpApiStatus: 401 }
) {}

/**
 * The token does not allow this, or the request comes from somewhere else than
 * the server's own page.
 *
 * @category errors
 * @since 0.1.0
 */
export class Forbidden extends Schema.TaggedError<Forbidden>()(
  "Forbidden",
  { message },
  { httpApiStatus: 403 }
) {}

/**
 * There is nothing at this address.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotFound extends Schema.TaggedError<NotFound>()(
  "NotFound",
  { message },
  { httpApiStatus: 404 }
) {}

/**
 * The request took too long to arrive.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>()(
  "RequestTimeout",
  { message },
  { httpApiStatus: 408 }
) {}

/**
 * The body is larger than the server takes. Nothing of it was taken.
 *
 * @category errors
 * @since 0.1.0
 */
export class BodyTooLarge extends Schema.TaggedError<BodyTooLarge>()(
  "BodyTooLarge",
  { message },
  { httpApiStatus: 413 }
) {}

/**
 * The keys of one agent's report are together longer than 6,144 bytes. The facts
 * before that were taken, the rest was not.
 *
 * @category errors
 * @since 0.1.0
 */
export class KeysTooLong extends Schema.TaggedError<KeysTooLong>()(
  "KeysTooLong",
  { message, accepted: Schema.Int },
  { httpApiStatus: 413 }
) {}

/**
 * The body is not said to be JSON.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedMediaType extends Schema.TaggedError<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  { message },
  { httpApiStatus: 415 }
) {}

/**
 * There was no room for some of the facts. Send the newest ones again after the
 * seconds that `Retry-After` names.
 *
 * @category errors
 * @since 0.1.0
 */
export class Dropped extends Schema.TaggedError<Dropped>()(
  "Dropped",
  { message, accepted: Schema.Int, dropped: Schema.Int },
  { httpApiStatus: 429 }
) {}

/**
 * There are as many watchers as the server, or the token, is allowed.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooManyWatchers extends Schema.TaggedError<TooManyWatchers>()(
  "TooManyWatchers",
  { message },
  { httpApiStatus: 429 }
) {}

/**
 * Not now: the database is away, or the server is stopping.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Schema.TaggedError<Unavailable>()(
  "Unavailable",
  { message },
  { httpApiStatus: 503 }
) {}
