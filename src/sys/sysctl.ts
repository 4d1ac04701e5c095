import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { runOk } from './exec.ts';
import { helperEnvironment } from './helpers.ts';

/** util-linux's and coreutils', which every distribution has. */
const [NSENTER, TEE] = ['nsenter', 'tee'];
/** Nothing is waited for but the start of a program, milliseconds. */
const TIMEOUT_MS = 10_000;

/**
 * Sets a sysctl as this thread's namespaces see it.
 *
 * @param name with dots; a slash stands for a dot that is part of a name
 * @throws Node's system error: ENOENT when this kernel has none of that name, EINVAL for a value that it refuses
 */
export function writeSysctl(name: string, value: string): void {
  const fd = openSync(sysctlPath(name), constants.O_WRONLY);
  try {
    writeSync(fd, value);
  } finally {
    closeSync(fd);
  }
}

/**
 * The same for an IPC namespace that a user namespace owns: from Linux 5.19 on only that one's root may
 * (`ipc_permissions` in ipc/ipc_sysctl.c), whom a process with threads cannot become.
 *
 * @param object the sandbox, for the process's mark
 * @throws BerthError `internal` with what the kernel answered
 */
export async function writeSysctlAsOwner(
  namespaces: { user: string; ipc: string },
  object: string,
  name: string,
  value: string,
): Promise<void> {
  const { user, ipc } = namespaces;
  await runOk([NSENTER, `--user=${user}`, `--ipc=${ipc}`, TEE, sysctlPath(name)], {
    input: value,
    env: { ...helperEnvironment(object), LC_ALL: 'C' },
    timeoutMs: TIMEOUT_MS,
    maxOutput: 64 * 1024,
  });
}

/** The file of a sysctl (proc_sys(5)): its dots are slashes, and the other way round. */
function sysctlPath(name: string): string {
  return `/proc/sys/${name.replace(/[./]/g, (c) => (c === '.' ? '/' : '.'))}`;
}
