import { describe, expect, it } from 'vitest';
import { loadShimProtos } from '../../../../src/shim/protos.ts';
import { type ContainerFigures, metricsV1, metricsV2, podMetrics } from '../../../../src/vm/shim/metrics.ts';

const { cgroupV1, cgroupV2 } = loadShimProtos();

const CPU = { usageNs: '5000000001', userNs: '3000000000', systemNs: '2000000000' };
const LINE = 'avg10=1.50 avg60=0.25 avg300=0.00 total=';
const FIGURES: ContainerFigures = {
  files: {
    'cpu.stat':
      'usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 7\n',
    'memory.current': '1000\n',
    'memory.max': '4096\n',
    'memory.peak': '2000\n',
    'memory.swap.current': '24\n',
    'memory.stat': 'anon 600\nfile 300\nkernel 50\ninactive_file 200\npgfault 9\npgmajfault 1\n',
    'memory.events': 'low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n',
    'memory.pressure': `some ${LINE}17\nfull ${LINE}4\n`,
    'pids.current': '4\n',
    'pids.max': '100\n',
    'io.stat': '254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n',
  },
  ...{ processes: '3', descriptors: '12', devices: {} },
};

describe("figures of a guest's cgroup", () => {
  it('as cgroup v2 has them', () => {
    const { cpu, memory, memory_events, pids, io } = cgroupV2.deserialize(
      cgroupV2.serialize(metricsV2(FIGURES)),
    );
    expect(cpu).toMatchObject({ usage_usec: '5000000', nr_periods: '10', throttled_usec: '7' });
    expect(memory).toMatchObject({ usage: '1000', usage_limit: '4096', anon: '600', inactive_file: '200' });
    expect(memory).toMatchObject({ max_usage: '2000', swap_usage: '24', swap_limit: '18446744073709551615' });
    expect(memory_events).toMatchObject({ oom_kill: '1', max: '3' });
    expect(pids).toMatchObject({ current: '4', limit: '100' });
    const line = { avg10: 1.5, avg60: 0.25, avg300: 0 };
    expect(memory?.psi).toEqual({ some: { ...line, total: '17' }, full: { ...line, total: '4' } });
    expect([cpu?.psi, io?.psi]).toEqual([null, null]);
    expect(io?.usage).toEqual([
      { major: '254', minor: '0', rbytes: '10', wbytes: '20', rios: '1', wios: '2' },
    ]);
  });

  it('as cgroup v1 has them', () => {
    const { cpu, memory, memory_oom_control, pids, blkio } = cgroupV1.deserialize(
      cgroupV1.serialize(metricsV1(FIGURES)),
    );
    expect(cpu?.usage).toMatchObject({ total: '5000000000', kernel: '2000000000', user: '3000000000' });
    expect(cpu?.throttling).toEqual({ periods: '10', throttled_periods: '4', throttled_time: '7000' });
    expect(memory?.usage).toEqual({ usage: '1000', limit: '4096', max: '2000', failcnt: '3' });
    expect(memory?.swap).toMatchObject({ usage: '1024', limit: '9223372036854771712' });
    expect(memory).toMatchObject({ rss: '600', total_cache: '300', total_inactive_file: '200' });
    expect(memory_oom_control?.oom_kill).toBe('1');
    expect(pids?.current).toBe('4');
    expect(blkio?.io_serviced_recursive.map(({ op, value }) => [op, value])).toEqual([
      ['Read', '1'],
      ['Write', '2'],
    ]);
  });

  it('of the whole guest', () => {
    const pod = {
      cpu: CPU,
      memory: { total: '1000', free: '300', available: '400', cached: '100' },
      interfaces: [
        {
          ...{ name: 'eth0', rxBytes: '1', rxPackets: '2', rxErrors: '3', rxDropped: '4' },
          ...{ txBytes: '5', txPackets: '6', txErrors: '7', txDropped: '8' },
        },
      ],
    };
    const v1 = cgroupV1.deserialize(cgroupV1.serialize(podMetrics(pod, 'v1')));
    const v2 = cgroupV2.deserialize(cgroupV2.serialize(podMetrics(pod, 'v2')));
    expect([v1.memory?.usage?.usage, v2.memory?.usage]).toEqual(['600', '600']);
    expect(v1.network).toEqual(v2.network);
    expect(v2.network[0]).toMatchObject({ name: 'eth0', rx_bytes: '1', tx_dropped: '8' });
  });
});
