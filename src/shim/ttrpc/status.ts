import { BerthError, type ErrorKind, kindOf, messageOf } from '../../errors.ts';

/** gRPC's codes (google.rpc.Code), which ttrpc shares, and what they mean here. */
const KINDS: Readonly<Record<number, ErrorKind>> = {
  1: 'cancelled',
  3: 'invalid',
  4: 'deadline',
  5: 'notFound',
  6: 'alreadyExists',
  7: 'permission',
  8: 'exhausted',
  9: 'precondition',
  12: 'unimplemented',
  14: 'unavailable',
};

const INTERNAL = 13;
/** Characters. */
const MAX_MESSAGE = 4096;
const CODES = new Map(Object.entries(KINDS).map(([code, kind]) => [kind, Number(code)]));

/** A status other than OK, as the error that a call throws. */
export function statusError(code: number, message: string): BerthError {
  return new BerthError(KINDS[code] ?? 'internal', message || `code ${code}`);
}

/** What a server answers for anything that was thrown. */
export function statusOf(e: unknown): { code: number; message: string } {
  return { code: CODES.get(kindOf(e)) ?? INTERNAL, message: messageOf(e).slice(0, MAX_MESSAGE) };
}
