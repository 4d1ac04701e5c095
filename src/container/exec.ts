import { finished, type Readable, type Writable } from 'node:stream';
import { messageOf } from '../errors.ts';
import type { ExecOptions, ExecProcess, TerminalSize } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import type { Outcome, Session } from '../streaming/remote-command/session.ts';
import { startExec } from './exec-process.ts';

/** What a terminal's driver takes for the end of input (VEOF, Ctrl-D), unless a program has changed it. */
const END_OF_INPUT = '\x04';
/** How long output is still read after the command's end when a child in the background holds it open. */
const DRAIN_MS = 1000;
/** Bytes that such a child may add meanwhile. */
const DRAIN_BYTES = 1024 * 1024;

/**
 * Exec: runs a command for one client, joined to its streams.
 *
 * A client that goes has its end of them closed: the command reads the end of its input, or loses its
 * terminal (SIGHUP). Without a terminal its output goes on into nothing, as Kubernetes' users know it: a long
 * job survives a cut connection.
 */
export async function exec(
  s: Services,
  id: string,
  options: ExecOptions,
  session: Session,
): Promise<Outcome> {
  let process: ExecProcess | undefined;
  let size: TerminalSize | undefined;
  session.onResize((told) => {
    size = told;
    process?.resize(told);
  });
  try {
    process = await startExec(s, id, { ...options, initialSize: () => size }, session.gone);
  } catch (e: unknown) {
    return { error: `failed to run the command: ${messageOf(e)}` };
  }
  return converse(process, options.tty, session);
}

/** Joins a running command and a client until the command has ended and its output is handed over. */
async function converse(process: ExecProcess, tty: boolean, session: Session): Promise<Outcome> {
  const leave = () => (tty ? process.release() : process.stdin?.destroy());
  session.gone.addEventListener('abort', leave, { once: true });
  try {
    if (session.gone.aborted) leave();
    if (session.stdin !== undefined && process.stdin !== undefined)
      connectInput(session.stdin, process.stdin, tty);
    const pumps = [
      process.stdout && new OutputPump(process.stdout, session.stdout),
      process.stderr && new OutputPump(process.stderr, session.stderr),
    ];
    const exitCode = await process.exited;
    await Promise.all(pumps.map((pump) => pump?.drain()));
    return { exitCode };
  } finally {
    session.gone.removeEventListener('abort', leave);
    process.release();
  }
}

/** Input that the command no longer takes is dropped, or it would hold up the client's other streams. */
function connectInput(from: Readable, to: Writable, tty: boolean): void {
  from.pipe(to, { end: !tty });
  // A terminal has no end of input but the one that is typed.
  if (tty) from.once('end', () => to.writable && to.write(END_OF_INPUT));
  to.once('close', () => {
    from.unpipe(to);
    from.resume();
  });
}

/** Hands output to the client no faster than it takes it; when the client has gone, drops it. */
class OutputPump {
  readonly #source: Readable;
  #drained = 0;
  #draining = false;
  #enough: () => void = () => {};

  constructor(source: Readable, sink: Writable | undefined) {
    this.#source = source;
    source.on('data', (chunk: Buffer) => this.#take(chunk, sink));
    sink?.on('drain', () => source.resume());
    sink?.once('close', () => source.resume());
  }

  /** After the command's end: takes what it left behind, which is not much, however slow the client is. */
  drain(): Promise<void> {
    this.#draining = true;
    this.#source.resume();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, DRAIN_MS);
      this.#enough = () => {
        clearTimeout(timer);
        resolve();
      };
      finished(this.#source, { writable: false }, this.#enough);
    });
  }

  #take(chunk: Buffer, sink: Writable | undefined): void {
    if (this.#draining) {
      this.#drained += chunk.length;
      if (this.#drained > DRAIN_BYTES) this.#enough();
    }
    if (sink === undefined || sink.destroyed) return;
    if (!sink.write(chunk) && !this.#draining) this.#source.pause();
  }
}
