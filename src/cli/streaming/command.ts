import { text } from 'node:stream/consumers';
import { finished } from 'node:stream/promises';
import { BerthError } from '../../errors.ts';
import type { SpdyConnection } from '../../streaming/spdy/connection.ts';
import type { Context } from '../context.ts';
import { ExitStatus } from '../errors.ts';
import { followSize, takeTerminal, terminalOf } from './terminal.ts';

/** Which of berth's own streams are joined to the command. */
export interface Joined {
  stdin: boolean;
  tty: boolean;
}

/**
 * Joins this process's streams to an exec or attach session until that ends.
 *
 * @throws ExitStatus for a command that ended with a code other than 0; BerthError with the server's message
 */
export async function runCommand(
  context: Context,
  connection: SpdyConnection,
  { stdin, tty }: Joined,
): Promise<void> {
  const stop = () => connection.destroy();
  context.signal.addEventListener('abort', stop, { once: true });
  const undo: (() => void)[] = [() => context.signal.removeEventListener('abort', stop), stop];
  try {
    if (context.signal.aborted) stop();
    const open = (streamtype: string) => connection.open(new Map([['streamtype', streamtype]]));
    const status = text(open('error')).catch(() => '');
    if (stdin) undo.push(joinInput(context.stdin, connection, tty));
    const outputs = [copy(open('stdout'), context.stdout)];
    if (!tty) outputs.push(copy(open('stderr'), context.stderr));
    if (tty) {
      const resize = open('resize');
      undo.push(followSize(context.stdout, (size) => resize.write(JSON.stringify(size))));
    }
    await Promise.all(outputs);
    judge(await status, context.signal);
  } finally {
    for (const step of undo) step();
  }
}

function joinInput(stdin: NodeJS.ReadableStream, connection: SpdyConnection, tty: boolean): () => void {
  const stream = connection.open(new Map([['streamtype', 'stdin']]));
  const terminal = tty ? terminalOf(stdin) : undefined;
  const restore = terminal === undefined ? () => {} : takeTerminal(terminal);
  stdin.pipe(stream);
  return () => {
    restore();
    stdin.unpipe(stream);
    // Or it would keep this process waiting for a key.
    stdin.pause();
  };
}

/** Resolves when the source has ended, or the connection is lost. */
async function copy(source: NodeJS.ReadableStream, to: NodeJS.WritableStream): Promise<void> {
  source.pipe(to, { end: false });
  await finished(source, { writable: false }).catch(() => {});
}

/** What the error stream says: a `Status` of Kubernetes' API. */
function judge(text: string, signal: AbortSignal): void {
  if (signal.aborted) throw new BerthError('cancelled', 'interrupted');
  let status: {
    status?: string;
    message?: string;
    details?: { causes?: { reason?: string; message?: string }[] };
  };
  try {
    status = JSON.parse(text);
  } catch {
    throw new BerthError('unavailable', text || 'the connection was lost before the command ended');
  }
  if (status.status === 'Success') return;
  const code = Number(status.details?.causes?.find(({ reason }) => reason === 'ExitCode')?.message);
  if (Number.isInteger(code)) throw new ExitStatus(code);
  throw new BerthError('internal', status.message ?? 'the command failed');
}
