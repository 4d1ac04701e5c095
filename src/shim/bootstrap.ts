import { BerthError, messageOf } from '../errors.ts';

/** Where a shim listens, and which version of the task service it has there. */
export interface ShimAddress {
  version: 2 | 3;
  /** Of a unix socket; one in the abstract namespace begins with a NUL byte. */
  socket: string;
}

/** Far more than an address needs, bytes. */
export const MAX_ANSWER = 64 * 1024;
const UNIX = 'unix://';

/**
 * What a shim's `start` verb printed (containerd's docs/runtime-v2.md): the address alone, which means version 2, or a
 * JSON object `{"version":3,"address":"unix:///…","protocol":"ttrpc"}`.
 *
 * @throws BerthError `internal` for no such answer; `unimplemented` for a later version or another protocol
 */
export function parseBootstrap(answer: Buffer): ShimAddress {
  const text = answer.toString('utf8').trim();
  if (!text.startsWith('{')) return { version: 2, socket: socketPath(text) };
  const { version, address, protocol } = parseObject(text);
  if (version !== 2 && version !== 3) {
    throw new BerthError('unimplemented', `the shim speaks version ${String(version)}; berth knows 2 and 3`);
  }
  if (protocol !== 'ttrpc') {
    throw new BerthError('unimplemented', `the shim speaks ${String(protocol)}; berth knows ttrpc`);
  }
  return { version, socket: socketPath(typeof address === 'string' ? address : '') };
}

function parseObject(text: string): { version?: unknown; address?: unknown; protocol?: unknown } {
  try {
    return Object(JSON.parse(text));
  } catch (e: unknown) {
    throw new BerthError('internal', `the shim's answer is no JSON: ${messageOf(e)}`, { cause: e });
  }
}

function socketPath(address: string): string {
  const isPlain = address !== '' && address.length <= 4096 && /^[\x21-\x7e]+$/.test(address);
  if (!isPlain) {
    throw new BerthError(
      'internal',
      `the shim answered no address: ${JSON.stringify(address.slice(0, 100))}`,
    );
  }
  if (address.startsWith(UNIX)) return address.slice(UNIX.length);
  if (address.includes('://')) {
    throw new BerthError('unimplemented', `the shim listens at ${address}; berth knows unix sockets`);
  }
  // As old shims mean it.
  return `\0${address}`;
}
