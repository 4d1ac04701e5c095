import { type RunResult, runOk } from '../../sys/exec.ts';
import { withNamespace } from '../../sys/namespaces.ts';

/** iproute2 speaks with the kernel alone: 10 ms, unless the machine is very busy. */
const COMMAND_MS = 10_000;
/** Bytes; a pod with a thousand routes has 200 KB of them. */
const MAX_OUTPUT = 8 << 20;

/** Runs `ip` or `tc` in a network namespace. @throws BerthError with its last line, SyscallError ENOENT */
export async function inNetns(
  netns: string,
  argv: readonly [string, ...string[]],
  signal?: AbortSignal,
): Promise<string> {
  let running: Promise<RunResult> | undefined;
  // The process is spawned before the first await; only that needs to happen inside.
  withNamespace(netns, 'net', () => {
    running = runOk(argv, {
      timeoutMs: COMMAND_MS,
      maxOutput: MAX_OUTPUT,
      ...(signal === undefined ? {} : { signal }),
    });
    // Nobody listens when the way back fails, which ends the process anyway.
    running.catch(() => {});
  });
  return (await running)?.stdout.toString() ?? '';
}
