import { readdir, readFile } from 'node:fs/promises';
import { identify, isAlive, type ProcessIdentity } from './process-identity.ts';

/** The children of a process, of all its threads (proc_pid_tid_children(5)); none when it has ended. */
export async function childrenOf(parent: ProcessIdentity): Promise<ProcessIdentity[]> {
  const tasks = `/proc/${parent.pid}/task`;
  const threads = await readdir(tasks).catch(() => []);
  const texts = await Promise.all(
    threads.map((thread) => readFile(`${tasks}/${thread}/children`, 'utf8').catch(() => '')),
  );
  const children = texts
    .flatMap((text) => text.split(' '))
    .filter((word) => word !== '')
    .flatMap((word) => identify(Number(word)) ?? []);
  // Read after them: as long as it lives, its number and so the list is its own.
  return isAlive(parent) ? children : [];
}

/** A process and all that it and its children have started, as far as that is not orphaned. */
export async function familyOf(process: ProcessIdentity): Promise<ProcessIdentity[]> {
  const children = await childrenOf(process);
  return [process, ...(await Promise.all(children.map(familyOf))).flat()];
}
