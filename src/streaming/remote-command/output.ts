import type { Writable } from 'node:stream';

/** Ends streams and waits until all that was written is with the transport, or the streams are gone. */
export async function endOutput(outputs: readonly Writable[]): Promise<void> {
  await Promise.all(
    outputs.map(
      (output) =>
        new Promise<void>((resolve) => {
          if (output.destroyed || output.writableFinished) return resolve();
          output.once('finish', resolve);
          output.once('close', resolve);
          output.end();
        }),
    ),
  );
}
