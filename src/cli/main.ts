import { messageOf } from '../errors.ts';
import { run } from './program.ts';

/** Shows the cursor again, which a progress bar may have hidden. */
const SHOW_CURSOR = '\u001b[?25h';

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    // The first asks the verb to end in order; the second does not wait for it.
    if (!interrupted.signal.aborted) return interrupted.abort();
    if (process.stderr.isTTY) process.stderr.write(SHOW_CURSOR);
    process.exit(130);
  });
}
// A person is told what went wrong, not where in berth it came up.
process.on('uncaughtException', (e: unknown) => {
  process.stderr.write(`berth: ${messageOf(e)}\n`);
  process.exit(1);
});
// `berth logs … | head` ends the reader first; that is not an error of ours.
process.stdout.on('error', () => process.exit(0));
process.exitCode = await run(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: interrupted.signal,
});
