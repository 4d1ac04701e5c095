import type { ReadStream, WriteStream } from 'node:tty';
import { makeRaw } from '../../sys/termios.ts';

/** A terminal's size in characters, as clients tell it. */
export interface Size {
  Width: number;
  Height: number;
}

/** The descriptor is there, but not in the types. */
type Terminal = ReadStream & { fd: number };

/** The terminal that a stream is, if it is one. */
export function terminalOf(stream: NodeJS.ReadableStream): Terminal | undefined {
  return (stream as Partial<ReadStream>).isTTY === true ? (stream as Terminal) : undefined;
}

/** The size of the terminal that a stream shows on, now and whenever it changes; does nothing without one. */
export function followSize(stream: NodeJS.WritableStream, tell: (size: Size) => void): () => void {
  const terminal = stream as Partial<WriteStream>;
  if (terminal.isTTY !== true) return () => {};
  const now = () => tell({ Width: terminal.columns ?? 80, Height: terminal.rows ?? 24 });
  now();
  stream.on('resize', now);
  return () => void stream.removeListener('resize', now);
}

/**
 * Hands every key to the program: no echo, no lines, no signals.
 *
 * @returns what gives the terminal back; it also happens by itself however the process ends, short of SIGKILL
 */
export function takeTerminal({ fd }: Terminal): () => void {
  const giveBack = makeRaw(fd);
  const restore = () => {
    process.off('exit', restore);
    process.off('SIGHUP', hangUp);
    giveBack();
  };
  // Node ends in order on SIGINT and SIGTERM, but not on this.
  const hangUp = () => process.exit(129);
  process.on('exit', restore);
  process.on('SIGHUP', hangUp);
  return restore;
}
