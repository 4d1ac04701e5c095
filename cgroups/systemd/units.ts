import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { CgroupError } from '../io.ts';
import type { Property } from './properties.ts';

const run = promisify(execFile);

/** Tells systemd the limits of its units, or the next daemon-reload would bring the old ones back. */
export interface Units {
  /**
   * @param path cgroup path; one that is no scope or slice (a cgroup inside a container) is no unit
   * and is skipped
   * @throws CgroupError EIO when systemd refuses
   */
  set(path: string, properties: readonly Property[]): Promise<void>;
}

/** Arguments of busctl for Manager.SetUnitProperties with runtime (not lasting past a reboot) = true. */
export function setPropertiesArgs(unit: string, properties: readonly Property[]): string[] {
  const manager = [
    'org.freedesktop.systemd1',
    '/org/freedesktop/systemd1',
    'org.freedesktop.systemd1.Manager',
  ];
  const values = properties.flatMap((property) => [...property]);
  return [
    '--timeout=10',
    'call',
    ...manager,
    'SetUnitProperties',
    'sba(sv)',
    unit,
    'true',
    `${properties.length}`,
    ...values,
  ];
}

/** @param busctl systemd's own client (systemd 244 or newer, for AllowedCPUs) */
export function systemdUnits(busctl = 'busctl'): Units {
  return {
    async set(path, properties) {
      const unit = path.slice(path.lastIndexOf('/') + 1);
      if (properties.length === 0 || !/\.(scope|slice)$/.test(unit)) return;
      try {
        // busctl has its own timeout; this one is for a busctl that cannot even reach the bus.
        await run(busctl, setPropertiesArgs(unit, properties), { timeout: 15_000, killSignal: 'SIGKILL' });
      } catch (e) {
        const stderr = e instanceof Error && 'stderr' in e ? String(e.stderr).trim() : '';
        const why = stderr || (e instanceof Error ? e.message : 'unknown error');
        throw new CgroupError('EIO', path, `systemd did not take the limits of ${unit}: ${why}`, e);
      }
    },
  };
}
