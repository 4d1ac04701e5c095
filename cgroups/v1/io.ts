import { type ReadFile, readOptional } from '../io.ts';
import { parseDevice, parseUint } from '../parse.ts';
import type { IoDeviceStats } from '../types.ts';

type Counters = { -readonly [K in keyof IoDeviceStats]: IoDeviceStats[K] };

/** `8:0 Read 1234` lines, into the given fields of each device. */
function collect(
  text: string,
  into: Map<string, Counters>,
  read: 'readBytes' | 'reads',
  written: 'writeBytes' | 'writes',
): void {
  for (const line of text.split('\n')) {
    const [name, operation, count] = line.split(' ');
    const device = parseDevice(name ?? '');
    const value = parseUint(count);
    if (name === undefined || device === undefined || value === undefined) continue;
    const entry = into.get(name) ?? { ...device, readBytes: 0n, writeBytes: 0n, reads: 0n, writes: 0n };
    into.set(name, entry);
    if (operation === 'Read') entry[read] = value;
    if (operation === 'Write') entry[written] = value;
  }
}

/** blkio.throttle.* counts for every scheduler; the other blkio files only for BFQ or old CFQ. */
export function stats(dir: string, readFile: ReadFile = readOptional): IoDeviceStats[] {
  const devices = new Map<string, Counters>();
  const read = (file: string) => readFile(dir, `${file}_recursive`) ?? readFile(dir, file) ?? '';
  collect(read('blkio.throttle.io_service_bytes'), devices, 'readBytes', 'writeBytes');
  collect(read('blkio.throttle.io_serviced'), devices, 'reads', 'writes');
  return [...devices.values()];
}
