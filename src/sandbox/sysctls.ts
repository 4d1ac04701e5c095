import { join } from 'node:path';
import { invalid, isErrno, messageOf } from '../errors.ts';
import { podSysctls, SYSCTL_FIELD } from '../spec/sysctl.ts';
import { withNamespace } from '../sys/namespaces.ts';
import { writeSysctl, writeSysctlAsOwner } from '../sys/sysctl.ts';
import type { SandboxConfig } from './config.ts';

/** A pod whose namespaces are pinned in `namespaces`. */
interface PinnedPod {
  id: string;
  namespaces: string;
  config: SandboxConfig;
}

/**
 * Sets sysctls in a pod's pinned namespaces, which are what decides whom they are for.
 *
 * @param names those to be set, of the ones that the pod asks for; default: all
 * @returns the names of those that are not there: an interface may have to be made first
 * @throws BerthError `invalid` naming the one whose value the kernel refuses
 */
export async function setSysctls(pod: PinnedPod, names?: readonly string[]): Promise<string[]> {
  const absent: string[] = [];
  for (const [name, value] of Object.entries(podSysctls(pod.config))) {
    if (names?.includes(name) === false) continue;
    try {
      await setSysctl(pod, name, value);
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT')) throw refused(name, `cannot be ${JSON.stringify(value)}: ${messageOf(e)}`);
      absent.push(name);
    }
  }
  return absent;
}

/** The same once the network is there, for those that were absent before. @throws BerthError `invalid` */
export async function setLateSysctls(pod: PinnedPod, late: readonly string[]): Promise<void> {
  if (late.length === 0) return;
  for (const name of await setSysctls(pod, late)) throw refused(name, 'there is no such sysctl on this node');
}

async function setSysctl({ id, namespaces, config }: PinnedPod, name: string, value: string): Promise<void> {
  const kind = name.startsWith('net.') ? 'net' : 'ipc';
  const pin = join(namespaces, kind);
  try {
    withNamespace(pin, kind, () => writeSysctl(name, value));
  } catch (e: unknown) {
    if (kind === 'net' || config.security.namespaces.user.mode === 'node' || !isErrno(e, 'EACCES')) throw e;
    await writeSysctlAsOwner({ user: join(namespaces, 'user'), ipc: pin }, id, name, value);
  }
}

function refused(name: string, problem: string): Error {
  return invalid(`${SYSCTL_FIELD}[${JSON.stringify(name)}]`, problem);
}
