import { type ReadFile, readOptional } from '../io.ts';
import { parseDevice, parseNestedKeyed, parseUint } from '../parse.ts';
import type { IoDeviceStats } from '../types.ts';

export function stats(dir: string, read: ReadFile = readOptional): IoDeviceStats[] {
  const out: IoDeviceStats[] = [];
  for (const [name, fields] of parseNestedKeyed(read(dir, 'io.stat'))) {
    const device = parseDevice(name);
    // A device that was never used is listed by its number alone.
    if (device === undefined || fields.size === 0) continue;
    const count = (key: string) => parseUint(fields.get(key)) ?? 0n;
    out.push({
      ...device,
      readBytes: count('rbytes'),
      writeBytes: count('wbytes'),
      reads: count('rios'),
      writes: count('wios'),
    });
  }
  return out;
}
