import * as z from 'zod/mini';
import { BerthError, isErrno } from '../../../errors.ts';
import { http } from '../../../util/node-http.ts';

const CALL_MS = 10_000;
/** Bytes of an answer: they are a few hundred. */
const MAX_ANSWER = 1 << 16;

const fault = z.object({ fault_message: z.string() });

/** The body of a request of Firecracker's API, by path; names and shapes are those of its OpenAPI description. */
export interface Call {
  method: 'PUT' | 'PATCH';
  path: string;
  body: Readonly<Record<string, string | number | boolean>>;
}

/**
 * Makes one call of the REST API on a unix socket; all calls that berth makes are answered 204.
 *
 * @throws BerthError `internal` with Firecracker's message when it refuses, `unavailable` when nobody answers,
 *   `deadline`; the signal's reason
 */
export async function callApi(socketPath: string, call: Call, signal: AbortSignal): Promise<void> {
  const timeout = AbortSignal.timeout(CALL_MS);
  const what = `Firecracker: ${call.method} ${call.path}`;
  const body = JSON.stringify(call.body);
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const request = http().request({
    socketPath,
    method: call.method,
    path: call.path,
    headers: { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) },
    signal: AbortSignal.any([signal, timeout]),
    agent: false,
  });
  request.on('error', reject);
  request.on('response', (response) => {
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (chunk: string) => {
      text += chunk;
      if (text.length > MAX_ANSWER) response.destroy(new Error('the answer is too long'));
    });
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
  });
  request.end(body);
  try {
    const { status, text } = await promise;
    if (status !== 204) throw new BerthError('internal', `${what}: ${status}: ${faultOf(text)}`);
  } catch (e: unknown) {
    signal.throwIfAborted();
    if (e instanceof BerthError) throw e;
    if (timeout.aborted) throw new BerthError('deadline', `${what}: no answer within ${CALL_MS} ms`);
    throw new BerthError('unavailable', `${what}: ${e instanceof Error ? e.message : e}`, { cause: e });
  }
}

/** True for what a socket answers whose server is not there yet. */
export function isNotListening(e: unknown): boolean {
  return e instanceof BerthError && isErrno(e.cause, 'ENOENT', 'ECONNREFUSED');
}

function faultOf(text: string): string {
  try {
    return fault.parse(JSON.parse(text)).fault_message;
  } catch {
    return text.slice(0, 200);
  }
}
