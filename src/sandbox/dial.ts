import type { Socket } from 'node:net';
import { join } from 'node:path';
import { BerthError, isErrno } from '../errors.ts';
import type { Services } from '../services.ts';
import { connectLoopback } from '../sys/loopback.ts';
import { isReady, type SandboxRecord } from './record.ts';

/** A listener whose queue is full makes the kernel try for two minutes; milliseconds. */
const CONNECT_MS = 30_000;

/** @throws BerthError `notFound`; `precondition` when it is stopped */
export function readySandbox(s: Services, id: string): SandboxRecord {
  const sandbox = s.sandboxes.require(id);
  if (sandbox.phase !== 'live') throw new BerthError('notFound', `sandbox "${id}" not found`);
  if (!isReady(sandbox))
    throw new BerthError('precondition', 'the sandbox is not ready: it has been stopped');
  return sandbox;
}

/**
 * Connects to a TCP port on the loopback of a pod's network, IPv4 first and then IPv6: programs that are
 * told to listen on "localhost" choose either.
 *
 * @throws BerthError as {@link readySandbox}; `unavailable` when nothing listens
 */
export async function dialPort(s: Services, sandboxId: string, port: number): Promise<Socket> {
  const sandbox = readySandbox(s, sandboxId);
  const netns =
    sandbox.config.security.namespaces.network === 'pod'
      ? join(s.paths.sandbox(sandboxId).namespaces, 'net')
      : undefined;
  const signal = AbortSignal.timeout(CONNECT_MS);
  const runtime = s.runtimes.get(sandbox.runtimeHandler);
  if (runtime?.dial !== undefined) return runtime.dial(sandboxId, port, signal);
  try {
    return await connectLoopback(s.poller, { netns, family: 4, port }, signal);
  } catch (e: unknown) {
    if (!isErrno(e, 'ECONNREFUSED', 'EAFNOSUPPORT', 'EADDRNOTAVAIL', 'ENETUNREACH')) throw e;
  }
  try {
    return await connectLoopback(s.poller, { netns, family: 6, port }, signal);
  } catch (e: unknown) {
    if (!isErrno(e, 'ECONNREFUSED', 'EAFNOSUPPORT', 'EADDRNOTAVAIL', 'ENETUNREACH')) throw e;
    throw new BerthError('unavailable', 'connection refused: nothing listens on 127.0.0.1 or ::1', {
      cause: e,
    });
  }
}
