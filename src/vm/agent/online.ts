import { readdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Result } from '../protocol/messages.ts';
import { memoryField } from './stats.ts';

const DEVICES = '/sys/devices/system';

/** Brings into use what the hypervisor has added since (Documentation/admin-guide/mm/memory-hotplug.rst, cpuhp). */
export async function bringOnline(): Promise<Result<'online'>> {
  await switchOn(`${DEVICES}/cpu`, /^cpu\d+$/, 'online', '0', '1');
  await switchOn(`${DEVICES}/memory`, /^memory\d+$/, 'state', 'offline', 'online');
  return {
    cpus: availableParallelism(),
    memoryBytes: memoryField(await readFile('/proc/meminfo', 'utf8'), 'MemTotal'),
  };
}

async function switchOn(dir: string, names: RegExp, file: string, off: string, on: string): Promise<void> {
  for (const name of (await readdir(dir).catch(() => [])).filter((entry) => names.test(entry))) {
    const path = `${dir}/${name}/${file}`;
    // The first processor has no such file.
    const state = await readFile(path, 'utf8').catch(() => on);
    if (state.trim() === off) await writeFile(path, on).catch(() => {});
  }
}
