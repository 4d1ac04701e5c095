import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError } from '../errors.ts';
import { inheritedEnvironment } from './exec.ts';
import { identify, isAlive, type ProcessIdentity, signal } from './process-identity.ts';

/**
 * The environment variable that names, in every helper process, the sandbox or container that it works for.
 * A daemon that is killed leaves its helpers running; this is how the next one knows them.
 */
const OBJECT = 'BERTH_OBJECT';
/** A killed process that is still there after this is stuck in the kernel, milliseconds. */
const KILL_WAIT_MS = 5_000;

/** A process that works for a sandbox or container. */
export interface Helper {
  object: string;
  process: ProcessIdentity;
}

/** The environment for a helper process of one sandbox or container. */
export function helperEnvironment(id: string): Record<string, string | undefined> {
  return { ...inheritedEnvironment(), ...helperMark(id) };
}

/** The same for an environment that is put together by hand. */
export function helperMark(id: string): Record<string, string> {
  return { [OBJECT]: id };
}

/** Environments that are read at a time: all of libuv's threads that are not taken. */
const AT_ONCE = 4;

/**
 * The helpers on this machine that work for objects in `ids`, and their children. Reads the environment of every process
 * (proc_pid_environ(5)): for a start, not for every call.
 *
 * @param options.variable another that names the object, where helpers are not to be ended with the daemon
 * @param options.except pids that need not be looked at
 */
export async function findHelpers(
  ids: { has(id: string): boolean },
  options: { variable?: string; except?: ReadonlySet<number | undefined> } = {},
): Promise<Helper[]> {
  const prefix = `${options.variable ?? OBJECT}=`;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const left = pids.filter((pid) => options.except?.has(pid) !== true).values();
  const found: Helper[] = [];
  const look = async () => {
    for (const pid of left) {
      // A process may go at any moment, and a zombie's environment is empty.
      const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
      const mark = environment.split('\0').find((variable) => variable.startsWith(prefix));
      const object = mark?.slice(prefix.length);
      if (object === undefined || !ids.has(object)) continue;
      const process = identify(pid);
      if (process !== undefined) found.push({ object, process });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, look));
  return found;
}

/**
 * Kills helpers and waits until they are gone.
 *
 * @throws BerthError `deadline` when one does not go
 */
export async function endHelpers(helpers: readonly Helper[]): Promise<void> {
  for (const { process } of helpers) signal(process, 'SIGKILL');
  const giveUp = performance.now() + KILL_WAIT_MS;
  for (const { process } of helpers) {
    while (isAlive(process)) {
      if (performance.now() > giveUp) {
        throw new BerthError('deadline', `helper process ${process.pid} does not end on SIGKILL`);
      }
      await delay(5);
    }
  }
}
