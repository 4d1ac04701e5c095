import { readFileSync } from 'node:fs';
import { readOptional } from '../../../cgroups/io.ts';
import { parseDevice, parseFlatKeyed, parseNestedKeyed } from '../../../cgroups/parse.ts';
import { procsOf } from '../../../cgroups/tree.ts';
import { DETAIL_FILES } from '../../../cgroups/v2/detail-files.ts';
import { notFound } from '../../errors.ts';
import type { OpenFileCounts } from '../../metrics/open-files.ts';
import type { GuestContainerStats, Result } from '../protocol/messages.ts';
import { CGROUP_ROOT, CONTAINERS_CGROUP } from './system.ts';

const NS_PER_US = 1000n;
const KIB = 1024n;

type Cpu = Result<'podStats'>['cpu'];

/**
 * The kernel makes these files on demand and never waits for it: through the thread pool they would take ten times as
 * long. What they say is for the host to make out, which is the faster one.
 *
 * @throws BerthError `notFound` when the cgroup is gone
 */
export function containerStats(
  { id, cgroup, initPid }: { id: string; cgroup: string; initPid: number },
  { openFiles, deviceName }: { openFiles: OpenFileCounts; deviceName: DeviceName },
): GuestContainerStats {
  const files: Record<string, string> = {};
  for (const name of DETAIL_FILES) {
    const text = readOptional(cgroup, name);
    if (text !== undefined) files[name] = text;
  }
  if (files['cpu.stat'] === undefined) throw notFound(`cgroup ${cgroup}`);
  const pids = procsOf([cgroup]);
  const { descriptors, sockets, softLimit } = openFiles.of(id, pids, initPid);
  return {
    files,
    processes: String(pids.length),
    descriptors: String(descriptors ?? 0n),
    ...(sockets === undefined ? {} : { sockets: String(sockets) }),
    ...(softLimit === undefined ? {} : { maxOpenFiles: String(softLimit) }),
    devices: deviceNames(files['io.stat'], deviceName),
  };
}

type DeviceName = (major: number, minor: number) => string;

function deviceNames(io: string | undefined, nameOf: DeviceName): Record<string, string> {
  const names: Record<string, string> = {};
  for (const numbers of parseNestedKeyed(io).keys()) {
    const device = parseDevice(numbers);
    if (device !== undefined) names[numbers] = nameOf(device.major, device.minor);
  }
  return names;
}

/** Of all containers together, and of what they share. */
export function podStats(): Result<'podStats'> {
  const meminfo = readFileSync('/proc/meminfo', 'utf8');
  return {
    memory: {
      total: memoryField(meminfo, 'MemTotal'),
      free: memoryField(meminfo, 'MemFree'),
      available: memoryField(meminfo, 'MemAvailable'),
      cached: memoryField(meminfo, 'Cached'),
    },
    interfaces: interfaceStats(readFileSync('/proc/net/dev', 'utf8')),
    cpu: cpuStats(readOptional(`${CGROUP_ROOT}${CONTAINERS_CGROUP}`, 'cpu.stat')),
  };
}

/** Bytes of a line of /proc/meminfo. */
export function memoryField(meminfo: string, name: string): string {
  const kib = new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(meminfo)?.[1] ?? '0';
  return String(BigInt(kib) * KIB);
}

function cpuStats(stat: string | undefined): Cpu {
  const values = parseFlatKeyed(stat);
  const ns = (key: string) => String((values.get(key) ?? 0n) * NS_PER_US);
  const [periods, throttled] = [values.get('nr_periods'), values.get('nr_throttled')];
  return {
    usageNs: ns('usage_usec'),
    userNs: ns('user_usec'),
    systemNs: ns('system_usec'),
    ...(periods === undefined ? {} : { periods: String(periods) }),
    ...(throttled === undefined ? {} : { throttledPeriods: String(throttled) }),
    ...(values.has('throttled_usec') ? { throttledNs: ns('throttled_usec') } : {}),
  };
}

/** Of /proc/net/dev: received bytes, packets, errors, drops, and four more; then the same sent. */
export function interfaceStats(dev: string): Result<'podStats'>['interfaces'] {
  return [...dev.matchAll(/^ *([^\s:]+):(.*)$/gm)].flatMap(([, name = '', rest = '']) => {
    const fields = rest.trim().split(/\s+/);
    const at = (index: number) => fields[index] ?? '0';
    if (fields.length < 16 || name === 'lo') return [];
    return [
      {
        name,
        ...{ rxBytes: at(0), rxPackets: at(1), rxErrors: at(2), rxDropped: at(3) },
        ...{ txBytes: at(8), txPackets: at(9), txErrors: at(10), txDropped: at(11) },
      },
    ];
  });
}
