import { mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { ReadStream } from 'node:tty';
import { BlockingPoller } from '../../sys/blocking-poller.ts';
import { setWindowSize } from '../../sys/pty.ts';
import type { Ended } from '../../sys/reap.ts';
import type { ChildStdio } from '../../sys/spawn.ts';
import { ConsoleSocket } from '../../sys/unix-socket.ts';
import { MuxDuplex } from '../channel/mux-duplex.ts';
import type { StreamIds } from '../protocol/messages.ts';
import type { Mux } from '../protocol/mux.ts';
import type { GuestRuntime } from './runtime.ts';
import { STATE_DIR } from './system.ts';

/** How long output is waited for that others than the process itself may still write, milliseconds. */
const DRAIN_MS = 1000;
const CONSOLE_MS = 60_000;

/** The host's streams of a process. */
export type ProcessStreams = { [K in keyof StreamIds]?: MuxDuplex };

/** Opens this end of streams; to be called before anything is awaited, so that no data comes too early. */
export function openStreams(mux: Mux, { stdin, stdout, stderr }: StreamIds): ProcessStreams {
  return {
    ...(stdin === undefined ? {} : { stdin: new MuxDuplex(mux, stdin) }),
    ...(stdout === undefined ? {} : { stdout: new MuxDuplex(mux, stdout) }),
    ...(stderr === undefined ? {} : { stderr: new MuxDuplex(mux, stderr) }),
  };
}

export interface ProcessOptions {
  runtime: GuestRuntime;
  streams: ProcessStreams;
  terminal: boolean;
  size: { width: number; height: number } | undefined;
  /** The verb with its arguments; `more` go between options and id. */
  verb(more: readonly string[]): readonly string[];
}

/** A process of a container: its init, or one that was executed in it. */
export class GuestProcess {
  readonly pid: number;
  /** How it ended. */
  readonly ended: Promise<Ended>;
  exit: Ended | undefined;
  readonly #outputs: readonly Promise<void>[];
  readonly #stdin: Socket | undefined;
  readonly #terminal: Terminal | undefined;

  constructor(
    { pid, ended }: { pid: number; ended: Promise<Ended> },
    io: { outputs: readonly Promise<void>[]; stdin: Socket | undefined; terminal: Terminal | undefined },
  ) {
    this.pid = pid;
    this.ended = ended.then((exit) => {
      this.exit = exit;
      return exit;
    });
    this.#outputs = io.outputs;
    this.#stdin = io.stdin;
    this.#terminal = io.terminal;
  }

  /** @throws BerthError of the runtime; the streams are ended then */
  static async start(options: ProcessOptions): Promise<GuestProcess> {
    // A socket's path is short, and ids are long.
    const dir = await mkdtemp(`${STATE_DIR}/start-`);
    try {
      return options.terminal ? await withTerminal(options, dir) : await withPipes(options, dir);
    } catch (e: unknown) {
      for (const stream of Object.values(options.streams)) stream.destroy();
      throw e;
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  /** Resolves when its output has reached the host, or others keep it open for too long. */
  async drained(): Promise<void> {
    const abort = new AbortController();
    await Promise.race([
      Promise.allSettled(this.#outputs),
      delay(DRAIN_MS, undefined, abort).catch(() => {}),
    ]);
    abort.abort();
  }

  resize(size: { width: number; height: number }): void {
    this.#terminal?.resize(size);
  }

  /** Its input has ended. A terminal's has not: a user would send the end as a character. */
  closeStdin(): void {
    this.#stdin?.end();
  }

  /** Sends a signal. @returns whether it still ran */
  signal(signal: number): boolean {
    if (this.exit !== undefined) return false;
    process.kill(this.pid, signal);
    return true;
  }
}

async function withPipes(options: ProcessOptions, dir: string): Promise<GuestProcess> {
  const { runtime, streams, verb } = options;
  const pidFile = `${dir}/pid`;
  const stdio: readonly ChildStdio[] = [
    streams.stdin === undefined ? 'ignore' : 'in',
    streams.stdout === undefined ? 'ignore' : 'out',
    streams.stderr === undefined ? 'ignore' : 'out',
  ];
  const { pipes, ...started } = await runtime.startProcess(verb(['--pid-file', pidFile]), pidFile, stdio);
  const [stdin, stdout, stderr] = pipes;
  const outputs = [copyOut(stdout, streams.stdout), copyOut(stderr, streams.stderr)];
  if (stdin !== undefined && streams.stdin !== undefined) copyIn(streams.stdin, stdin, true);
  void started.ended.then(() => stdin?.destroy());
  return new GuestProcess(started, { outputs, stdin, terminal: undefined });
}

async function withTerminal(options: ProcessOptions, dir: string): Promise<GuestProcess> {
  const { runtime, streams, verb, size } = options;
  const [pidFile, path] = [`${dir}/pid`, `${dir}/console`];
  const console_ = new ConsoleSocket(new BlockingPoller(), path);
  const abort = AbortSignal.timeout(CONSOLE_MS);
  try {
    const receiving = console_.receive(abort);
    receiving.catch(() => {});
    const more = ['--pid-file', pidFile, '--console-socket', path];
    const { pipes: _, ...started } = await runtime.startProcess(verb(more), pidFile, []);
    const terminal = new Terminal(await receiving);
    if (size !== undefined) terminal.resize(size);
    const outputs = [copyOut(terminal.stream, streams.stdout)];
    if (streams.stdin !== undefined) copyIn(streams.stdin, terminal.stream, false);
    return new GuestProcess(started, { outputs, stdin: undefined, terminal });
  } finally {
    console_.close();
  }
}

/** A pty's master. */
class Terminal {
  readonly stream: Socket;
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
    this.stream = new ReadStream(fd);
  }

  resize(size: { width: number; height: number }): void {
    if (!this.stream.destroyed) setWindowSize(this.#fd, size);
  }
}

/**
 * Sends output to the host as fast as that takes it. When the host's end goes away, the output goes nowhere: a process
 * must not stop because nobody reads.
 */
function copyOut(from: Socket | undefined, to: MuxDuplex | undefined): Promise<void> {
  if (from === undefined) {
    to?.destroy();
    return Promise.resolve();
  }
  if (to === undefined) {
    from.resume();
    return Promise.resolve();
  }
  // The host says nothing on it; its end must be seen.
  to.resume();
  to.on('close', () => {
    from.unpipe(to);
    from.resume();
  });
  // A pty answers EIO when the last process has closed it.
  from.on('error', () => to.end());
  from.pipe(to);
  return finished(to, { readable: false }).catch(() => {});
}

function copyIn(from: MuxDuplex, to: Socket, end: boolean): void {
  // The process reads no more.
  to.on('error', () => from.destroy());
  to.on('close', () => from.destroy());
  from.pipe(to, { end });
}
