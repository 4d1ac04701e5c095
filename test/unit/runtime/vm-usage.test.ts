import { describe, expect, it } from 'vitest';
import { DETAIL_FILES } from '../../../cgroups/v2/detail-files.ts';
import { readDetails } from '../../../cgroups/v2/details.ts';
import { toUsage } from '../../../src/runtime/vm/usage.ts';
import { loadShimProtos } from '../../../src/shim/protos.ts';
import type { GuestFigures } from '../../../src/shim/task.ts';

const { Figures } = loadShimProtos().guest;
const FIGURES = {
  files: {
    'cpu.stat': 'usage_usec 7\nnr_periods 3\nnr_throttled 2\nthrottled_usec 5\n',
    'cpu.max': '50000 100000\n',
    'cpu.pressure': 'some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n',
    'memory.current': '1000\n',
    'memory.stat': 'inactive_file 400\n',
    'memory.swap.current': '0\n',
    'memory.swap.max': 'max\n',
  },
  ...{ processes: '3', descriptors: '12', devices: { '254:0': '/dev/vda' } },
};
/** As it comes over the wire. */
const told = (message: object): GuestFigures =>
  Figures.responseDeserialize(Figures.responseSerialize(message)) as GuestFigures;

describe("a guest's figures", () => {
  it('are those of a cgroup, and of what its processes have open', () => {
    const { details, processes, openFiles, deviceName } = toUsage(
      told({ ...FIGURES, sockets: '4', max_open_files: '1024' }),
    );
    expect(details).toMatchObject({
      cpu: { usageNs: 7000n, nrPeriods: 3n, nrThrottled: 2n, throttledNs: 5000n },
      cpuLimits: { cpuQuota: 50_000n, cpuPeriod: 100_000n },
      memory: { usageBytes: 1000n, workingSetBytes: 600n },
      psi: { cpu: { some: { totalNs: 9000n } }, memory: undefined },
      processes: undefined,
    });
    expect([processes, openFiles]).toEqual([3n, { descriptors: 12n, sockets: 4n, softLimit: 1024n }]);
    expect([deviceName(254, 0), deviceName(8, 0)]).toEqual(['/dev/vda', '8:0']);
  });

  it('leave out what is not known, and know that a guest has no swap', () => {
    const { details, openFiles } = toUsage(told(FIGURES));
    expect(openFiles).toEqual({ descriptors: 12n, sockets: undefined, softLimit: undefined });
    expect(details.pids).toEqual({ current: undefined, limit: undefined });
    expect(details.memory).toMatchObject({ swapUsageBytes: 0n, swapLimitBytes: 0n, limitBytes: undefined });
    expect(toUsage(told({})).details.memory.swapLimitBytes).toBeUndefined();
  });

  it('are of all files that tell something', () => {
    const asked = new Set<string>();
    const read = (_: string, file: string) => {
      asked.add(file);
      return undefined;
    };
    readDetails('/x', [], { read, readLimit: read });
    expect([...asked].sort()).toEqual([...DETAIL_FILES].sort());
  });
});
