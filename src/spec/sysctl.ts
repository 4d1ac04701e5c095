import { invalid } from '../errors.ts';
import type { SandboxConfig } from '../sandbox/config.ts';

/** Where a pod's configuration has them. */
export const SYSCTL_FIELD = 'config.linux.sysctls';

/** Kept per IPC namespace (ipc_namespaces(7)); exactly those that runc accepts. */
const IPC = new Set([
  'kernel.msgmax',
  'kernel.msgmnb',
  'kernel.msgmni',
  'kernel.sem',
  'kernel.shmall',
  'kernel.shmmax',
  'kernel.shmmni',
  'kernel.shm_rmid_forced',
]);

/**
 * The sysctls of a pod, in the dotted spelling. Refused are those that are not kept per namespace, since
 * they would change the whole node, and those of a namespace that the pod shares with the node.
 */
export function podSysctls({
  sysctls,
  security: { namespaces },
}: Pick<SandboxConfig, 'sysctls' | 'security'>): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [given, value] of Object.entries(sysctls)) {
    const name = dotted(given);
    const field = `${SYSCTL_FIELD}[${JSON.stringify(given.slice(0, 100))}]`;
    // An empty part would be `..` or `//` in the path below /proc/sys that the name turns into.
    if (name.length > 253 || /[\s\0]/.test(name) || name.split(/[./]/).includes('')) {
      throw invalid(field, 'not the name of a sysctl');
    }
    if (value.length > 4096 || value.includes('\0')) throw invalid(field, 'value is too long or not text');
    const network = name.startsWith('net.');
    const ipc = IPC.has(name) || name.startsWith('fs.mqueue.');
    if (!network && !ipc) {
      throw invalid(
        field,
        'is not kept per namespace; only net.*, fs.mqueue.* and kernel.{sem,shm*,msg*} are',
      );
    }
    if (network && namespaces.network === 'node')
      throw invalid(field, "would change the node: the pod has the node's network");
    if (ipc && namespaces.ipc === 'node')
      throw invalid(field, "would change the node: the pod has the node's IPC namespace");
    result[name] = value;
  }
  return result;
}

/** sysctl(8) takes `net/ipv4/conf/eth0.100/x` too: when the first separator is a slash, the two are swapped. */
function dotted(name: string): string {
  const first = /[./]/.exec(name)?.[0];
  if (first !== '/') return name;
  return name.replace(/[./]/g, (c) => (c === '/' ? '.' : '/'));
}
