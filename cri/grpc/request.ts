import type { HeaderField } from './hpack/static-table.ts';
import { parseTimeout } from './timeout.ts';

/** What the headers of a request say. */
export interface RequestHeaders {
  /** `/package.Service/Method` */
  readonly path: string;
  /** Undefined: the caller has no deadline. */
  readonly timeoutMs: number | undefined;
}

/** Headers that are no gRPC request: answered with an HTTP status (gRPC over HTTP/2, "Requests"). */
export class NotGrpc extends Error {
  readonly httpStatus: 405 | 415;

  constructor(httpStatus: 405 | 415) {
    super(`HTTP ${httpStatus}`);
    this.httpStatus = httpStatus;
  }
}

/** Headers that are no HTTP/2 request (RFC 9113, 8.1.1): their stream is reset. */
export class Malformed extends Error {}

const PSEUDO = new Set([':method', ':scheme', ':path', ':authority']);

/**
 * @throws Malformed for what is no HTTP/2
 * @throws NotGrpc for another method than POST and another content type
 * @throws BerthError for a timeout that is none
 */
export function readHeaders(fields: readonly HeaderField[]): RequestHeaders {
  const headers = new Map<string, string>();
  let isRegular = false;
  for (const [name, value] of fields) {
    const isPseudo = name.startsWith(':');
    isRegular ||= !isPseudo;
    if (isPseudo && (isRegular || headers.has(name) || !PSEUDO.has(name)))
      throw new Malformed(`header ${name}`);
    if (/[^!-9;-@[-~]/.test(name.slice(isPseudo ? 1 : 0)) || name.length === 0)
      throw new Malformed('header name');
    headers.set(name, value);
  }
  const path = headers.get(':path');
  if (path === undefined || !headers.has(':scheme')) throw new Malformed('no path or scheme');
  if (headers.get(':method') !== 'POST') throw new NotGrpc(405);
  if (!/^application\/grpc(\+proto)?(;|$)/.test(headers.get('content-type') ?? '')) throw new NotGrpc(415);
  const timeout = headers.get('grpc-timeout');
  return { path, timeoutMs: timeout === undefined ? undefined : parseTimeout(timeout) };
}
