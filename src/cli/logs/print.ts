import { once } from 'node:events';
import type { LogEntry } from './line.ts';

/** Where a container's output goes, and what is put before each line. */
export interface PrintOptions {
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
  timestamps?: boolean;
  prefix?: string;
}

/**
 * Writes log entries as the container wrote them, stdout to stdout and stderr to stderr. Parts of a line
 * are put together again.
 */
export async function printLog(entries: AsyncIterable<LogEntry>, options: PrintOptions): Promise<void> {
  const open = { stdout: false, stderr: false };
  for await (const { stream, timeText, text, final } of entries) {
    const head = open[stream] ? '' : `${options.prefix ?? ''}${options.timestamps ? `${timeText} ` : ''}`;
    open[stream] = !final;
    const target = options[stream];
    if (!target.write(Buffer.concat([Buffer.from(head), text, Buffer.from(final ? '\n' : '')]))) {
      await once(target, 'drain');
    }
  }
}
