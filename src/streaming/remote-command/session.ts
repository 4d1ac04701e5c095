import type { Readable, Writable } from 'node:stream';

/** Which streams the caller of Exec or Attach asked for. */
export interface WantedStreams {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
}

/** A terminal's size in characters. */
export interface TerminalSize {
  width: number;
  height: number;
}

/**
 * One client's exec or attach session, whatever its transport. The streams are the client's: `stdin` is
 * read, the others are written. All close without an end when the client goes.
 */
export interface Session {
  stdin?: Readable;
  stdout?: Writable;
  stderr?: Writable;
  /** Calls back with each size that the client tells, and with the last one told before. */
  onResize(listener: (size: TerminalSize) => void): void;
  /** Aborted when the client has gone. */
  readonly gone: AbortSignal;
}

/** How a session's command ended: with a code, or not at all because of an error. */
export type Outcome = { exitCode: number } | { error: string };

/** What a session does; it must not reject and must not end before all output is handed over. */
export type RemoteCommand = (session: Session) => Promise<Outcome>;

/** A transport's side: the session, and how its end is told. */
export interface OpenSession extends Session {
  /** Ends the output streams, tells the outcome, and closes the connection in order. */
  finish(outcome: Outcome): Promise<void>;
}
