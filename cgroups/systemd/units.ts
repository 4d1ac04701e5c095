import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CgroupError } from '../io.ts';
import { INFINITY, type Property } from './properties.ts';

const run = promisify(execFile);

/** systemd takes a few milliseconds from its answer until it has moved a process; milliseconds. */
const MOVE_MS = 10_000;
const MOVE_POLL_MS = 2;

/** systemd's part of control groups where it is asked to manage them. */
export interface Units {
  /**
   * Makes a transient scope with one process in it, and resolves when that has been moved. systemd takes the scope down
   * with its last process. It has no limits of its own.
   *
   * @param path cgroup path of the scope, whose slices systemd makes as needed
   * @throws CgroupError EIO when systemd refuses, as it does while there is a unit of that name
   */
  startScope(path: string, pid: number): Promise<void>;
  /**
   * Tells systemd the limits of a unit, or the next daemon-reload would bring the old ones back.
   *
   * @param path cgroup path; one that is no scope or slice (a cgroup inside a container) is no unit
   * and is skipped
   * @throws CgroupError EIO when systemd refuses
   */
  set(path: string, properties: readonly Property[]): Promise<void>;
}

/** Arguments of busctl for Manager.SetUnitProperties with runtime (not lasting past a reboot) = true. */
export function setPropertiesArgs(unit: string, properties: readonly Property[]): string[] {
  return callArgs('SetUnitProperties', 'sba(sv)', [unit, 'true', ...valuesOf(properties)]);
}

/**
 * Arguments of busctl for Manager.StartTransientUnit. Delegated, so that systemd enables all controllers and leaves what
 * is below alone; a unit that has failed is forgotten at once, so that its name is free.
 */
export function startScopeArgs(slice: string, unit: string, pid: number): string[] {
  const properties: Property[] = [
    ['Description', 's', `berth ${unit}`],
    ['Slice', 's', slice],
    ['PIDs', 'au', '1', `${pid}`],
    ['Delegate', 'b', 'true'],
    ['DefaultDependencies', 'b', 'false'],
    ['CollectMode', 's', 'inactive-or-failed'],
    ...ACCOUNTING.map((name): Property => [name, 'b', 'true']),
    // systemd's default for all units is less; what limits a pod is its slice.
    ['TasksMax', 't', `${INFINITY}`],
  ];
  // No auxiliary units.
  const values = [unit, 'fail', ...valuesOf(properties), '0'];
  return callArgs('StartTransientUnit', 'ssa(sv)a(sa(sv))', values);
}

const ACCOUNTING = ['CPUAccounting', 'MemoryAccounting', 'IOAccounting', 'TasksAccounting'];

function valuesOf(properties: readonly Property[]): string[] {
  return [`${properties.length}`, ...properties.flatMap((property) => [...property])];
}

function callArgs(method: string, signature: string, values: readonly string[]): string[] {
  const manager = [
    'org.freedesktop.systemd1',
    '/org/freedesktop/systemd1',
    'org.freedesktop.systemd1.Manager',
  ];
  return ['--timeout=10', 'call', ...manager, method, signature, ...values];
}

/** What {@link systemdUnits} works with. */
export interface UnitsOptions {
  /** systemd's own client (systemd 244 or newer, for AllowedCPUs). */
  readonly busctl?: string;
  /** The text of /proc/<pid>/cgroup. */
  readonly cgroupsOf?: (pid: number) => string;
}

export function systemdUnits(options: UnitsOptions = {}): Units {
  const { busctl = 'busctl', cgroupsOf = (pid) => readFileSync(`/proc/${pid}/cgroup`, 'utf8') } = options;
  const call = async (args: string[], path: string, refused: string): Promise<void> => {
    try {
      // busctl has its own timeout; this one is for a busctl that cannot even reach the bus.
      await run(busctl, args, { timeout: 15_000, killSignal: 'SIGKILL' });
    } catch (e) {
      const stderr = e instanceof Error && 'stderr' in e ? String(e.stderr).trim() : '';
      const why = stderr || (e instanceof Error ? e.message : 'unknown error');
      throw new CgroupError('EIO', path, `systemd ${refused}: ${why}`, e);
    }
  };
  return {
    async startScope(path, pid) {
      const [slice = '', unit = ''] = path.split('/').slice(-2);
      await call(startScopeArgs(slice || '-.slice', unit, pid), path, `did not start ${unit}`);
      for (const since = performance.now(); ; await delay(MOVE_POLL_MS)) {
        if (
          cgroupsOf(pid)
            .split('\n')
            .some((line) => line.endsWith(`/${unit}`))
        )
          return;
        if (performance.now() - since < MOVE_MS) continue;
        throw new CgroupError('EIO', path, `systemd did not put process ${pid} into ${unit}`);
      }
    },
    async set(path, properties) {
      const unit = path.slice(path.lastIndexOf('/') + 1);
      if (properties.length === 0 || !/\.(scope|slice)$/.test(unit)) return;
      await call(setPropertiesArgs(unit, properties), path, `did not take the limits of ${unit}`);
    },
  };
}
