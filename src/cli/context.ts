import type { Client } from './client.ts';

/** What a verb works with: the daemon, the streams, and the options that every verb has. */
export interface Context {
  /** Connects on first use; gRPC takes longer to load than all else, and help needs none of it. */
  client(): Promise<Client>;
  output: 'table' | 'json';
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
  stdin: NodeJS.ReadableStream;
  env: Readonly<Record<string, string | undefined>>;
  /** Aborted by Ctrl-C and SIGTERM. */
  signal: AbortSignal;
}

/** Says something about the work that is not its result, on stderr. */
export function warn(context: Context, message: string): void {
  context.stderr.write(`berth: warning: ${message}\n`);
}
