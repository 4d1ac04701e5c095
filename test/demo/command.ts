import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';

/** A command that ended with another status than 0, or was not there. */
export class CommandError extends Error {}

/**
 * Runs a program to its end. A `signal` that is aborted interrupts it, as Ctrl-C would, and its end is
 * waited for. It is in a session of its own, so that Ctrl-C in the terminal reaches it through `signal` alone:
 * berth takes a second one for impatience, and would leave its work undone.
 *
 * @returns what it wrote
 * @throws CommandError with what it wrote on stderr
 */
export async function runCommand(
  program: string,
  args: readonly string[],
  env: Record<string, string>,
  signal: AbortSignal,
): Promise<{ stdout: string; stderr: string }> {
  signal.throwIfAborted();
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    detached: true,
  });
  const interrupt = () => child.kill('SIGINT');
  signal.addEventListener('abort', interrupt, { once: true });
  try {
    const end = new Promise<string>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, killer) => resolve(killer ?? String(code)));
    });
    const [status, stdout, stderr] = await Promise.all([end, text(child.stdout), text(child.stderr)]);
    signal.throwIfAborted();
    if (status === '0') return { stdout, stderr };
    throw new CommandError(`ended with ${/^\d/.test(status) ? 'status ' : ''}${status}: ${stderr.trim()}`);
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
}
