/**
 * The kinds of failure that berth tells apart. `cri/status.ts` maps each to one gRPC code; nothing else
 * in the project decides by the text of a message.
 *
 * - `invalid`: a field of the request is wrong; the caller must change it
 * - `notFound`: the named object does not exist
 * - `alreadyExists`: the name is taken by an object with another configuration
 * - `precondition`: the object is in a state that forbids the call
 * - `unavailable`: something that berth needs is not there now (network not ready)
 * - `registryUnavailable`: a registry does not answer, or not as one; its message begins with that word
 * - `signatureInvalid`: an image lacks the signature that it must have; its message begins with SignatureValidationFailed
 * - `deadline`: the caller's or an operation's time ran out
 * - `cancelled`: the caller went away
 * - `unimplemented`: berth or the host cannot do it
 * - `exhausted`: a limit of size or count was reached
 * - `permission`: credentials were refused
 * - `internal`: a step failed for a reason the caller cannot change
 */
export type ErrorKind =
  | 'invalid'
  | 'notFound'
  | 'alreadyExists'
  | 'precondition'
  | 'unavailable'
  | 'registryUnavailable'
  | 'signatureInvalid'
  | 'deadline'
  | 'cancelled'
  | 'unimplemented'
  | 'exhausted'
  | 'permission'
  | 'internal';

/** An error whose kind decides how the caller is answered. */
export class BerthError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'BerthError';
    this.kind = kind;
  }
}

/**
 * A request field that is wrong. `field` is its path as the protocol spells it
 * (`config.metadata.name`), `problem` says what is wrong and what would be right.
 */
export function invalid(field: string, problem: string): BerthError {
  return new BerthError('invalid', `${field}: ${problem}`);
}

/** `what` is the noun and the name that the caller used, such as `container "abc"`. */
export function notFound(what: string): BerthError {
  return new BerthError('notFound', `${what} not found`);
}

/**
 * The error with a step put before its message (`start pause container: …`); the kind of a BerthError
 * is kept, an abort becomes `cancelled`, a timeout `deadline`, anything else `internal`.
 */
export function during(step: string, e: unknown): BerthError {
  return new BerthError(kindOf(e), `${step}: ${messageOf(e)}`, { cause: e });
}

/** The kind of anything that was thrown. */
export function kindOf(e: unknown): ErrorKind {
  if (e instanceof BerthError) return e.kind;
  if (e instanceof Error && e.name === 'AbortError') return 'cancelled';
  if (e instanceof Error && e.name === 'TimeoutError') return 'deadline';
  if (isErrno(e, 'ENOSPC', 'EDQUOT')) return 'exhausted';
  return 'internal';
}

/** The message of anything that was thrown. */
export function messageOf(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}

/** True for a system error (Node's or `src/sys`'s) with one of the named codes, such as `ENOENT`. */
export function isErrno(e: unknown, ...codes: string[]): e is NodeJS.ErrnoException {
  return e instanceof Error && 'code' in e && typeof e.code === 'string' && codes.includes(e.code);
}
