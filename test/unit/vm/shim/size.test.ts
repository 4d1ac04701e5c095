import { expect, it } from 'vitest';
import { parseConfig } from '../../../../src/config/load.ts';
import { annotatedLimits, machineSize, updatedLimits } from '../../../../src/vm/shim/size.ts';

const { vm: SETTINGS } = parseConfig(
  '[vm]\nmemory = 100\ndefault_memory = 30\nmax_memory = 1000\nvcpus = 2\nmax_vcpus = 4',
  'x',
);
const MIB = 1024n * 1024n;

const GIB = 1024n * MIB;
const NODE = { cpus: 64, memoryBytes: 256n * GIB };

const sized = (sums: Record<string, string>) => {
  const annotations = Object.fromEntries(
    Object.entries(sums).map(([name, value]) => [`io.kubernetes.cri.sandbox-${name}`, value]),
  );
  const { vcpus, memoryBytes } = machineSize(annotatedLimits(annotations), SETTINGS, NODE);
  return [vcpus, memoryBytes / MIB];
};

it.each([
  ['no limits', {}, [2, 130n]],
  ['zeros mean none', { memory: '0', 'cpu-quota': '0', 'cpu-period': '100000' }, [2, 130n]],
  ['memory on top of the own', { memory: String(50n * MIB) }, [2, 150n]],
  ['whole MiB', { memory: '1' }, [2, 101n]],
  ['at most the maximum', { memory: String(2000n * MIB) }, [2, 1000n]],
  ['half a CPU', { 'cpu-quota': '50000', 'cpu-period': '100000' }, [1, 130n]],
  ['two and a half', { 'cpu-quota': '250000', 'cpu-period': '100000' }, [3, 130n]],
  ['at most the maximum of CPUs', { 'cpu-quota': '990000', 'cpu-period': '100000' }, [4, 130n]],
  ['unlimited', { 'cpu-quota': '-1', 'cpu-period': '100000', memory: '-1' }, [2, 130n]],
  ['nonsense', { memory: '1e9' }, [2, 130n]],
])('the size of a machine: %s', (_what, sums, expected) => {
  expect(sized(sums)).toEqual(expected);
});

it('reads the limits of an update', () => {
  expect(updatedLimits({ memory: { limit: 5 }, cpu: { quota: 7, period: 9n } })).toEqual({
    ...{ memory: 5n, quota: 7n, period: 9n },
  });
  expect(updatedLimits({ cpu: { quota: -1 } })).toEqual({});
});

it.each([
  ['much', 100n * MIB, 0, 256n * GIB, 16n * GIB],
  ['four times its size', 10n * GIB, 0, 256n * GIB, 40n * GIB + 400n * MIB],
  ['what is configured', 100n * MIB, 1000, 256n * GIB, 1000n * MIB],
  ['what the node has', 100n * MIB, 0, 8n * GIB + 1n, 8n * GIB],
  ['what the node has, whatever is configured', 100n * MIB, 9000, 8n * GIB, 8n * GIB],
])('a machine can grow to %s', (_what, memory, max_memory, memoryBytes, expected) => {
  const settings = { ...SETTINGS, max_memory };
  expect(machineSize({ memory }, settings, { cpus: 2, memoryBytes })).toMatchObject({
    ...{ vcpus: 2, maxVcpus: 2, maxMemoryBytes: expected },
  });
});
