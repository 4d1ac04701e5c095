import { describe, expect, it } from 'vitest';
import { parseIp, parseMac, parseNetwork } from '../../../src/vm/agent/ip.ts';
import { completeSpec, rootPath } from '../../../src/vm/agent/spec.ts';
import { interfaceStats, memoryField } from '../../../src/vm/agent/stats.ts';

describe('an address', () => {
  it.each([
    ['10.0.0.2', '0a000002'],
    ['::', '0'.repeat(32)],
    ['::1', `${'0'.repeat(31)}1`],
    ['fd00::2', `fd00${'0'.repeat(27)}2`.slice(0, 32)],
    ['fe80::1:2', 'fe800000000000000000000000010002'],
    ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
    ['1::', `0001${'0'.repeat(28)}`],
    ['::ffff:192.0.2.1', '00000000000000000000ffffc0000201'],
  ])('%s is its bytes', (text, hex) => {
    expect(parseIp(text).toString('hex')).toBe(hex);
  });

  it.each(['', '10.0.0', '10.0.0.256', 'fd00::x', 'fe80::1%eth0', '1:2:3:4:5:6:7:8:9'])(
    '"%s" is refused',
    (text) => {
      expect(() => parseIp(text)).toThrow(/no IP address/);
    },
  );

  it('has a prefix length that fits', () => {
    expect(parseNetwork('10.0.0.2/24')).toEqual({ bytes: Buffer.from([10, 0, 0, 2]), prefix: 24 });
    expect(parseNetwork('fd00::/64').prefix).toBe(64);
    expect(parseNetwork('10.0.0.2').prefix).toBe(32);
    for (const text of ['10.0.0.2/33', '10.0.0.2/', '10.0.0.2/x', '10.0.0.2/-1', 'fd00::/129']) {
      expect(() => parseNetwork(text)).toThrow();
    }
  });

  it('of hardware has six bytes', () => {
    expect([...parseMac('02:00:00:00:0a:ff')]).toEqual([2, 0, 0, 0, 10, 255]);
  });
});

describe("a container's spec", () => {
  const choices = { cgroupsPath: '/berth/a', pidNamespace: async (word: string) => `/proc/1/ns/${word}` };
  const spec = (namespaces: object[]) =>
    `{"root":{"path":"/r"},"process":{"rlimits":[{"hard":18446744073709551615}]},"linux":${JSON.stringify({ namespaces })}}`;

  it("gets its cgroup and the pod's PID namespace, and keeps its numbers", async () => {
    const text = await completeSpec(spec([{ type: 'pid', path: 'sandbox' }, { type: 'mount' }]), choices);
    expect(text).toContain('18446744073709551615');
    expect(JSON.parse(text).linux).toEqual({
      cgroupsPath: '/berth/a',
      namespaces: [{ type: 'pid', path: '/proc/1/ns/sandbox' }, { type: 'mount' }],
    });
  });

  it('keeps a new PID namespace and one with a real path', async () => {
    for (const namespace of [{ type: 'pid' }, { type: 'pid', path: '/proc/9/ns/pid' }]) {
      expect(JSON.parse(await completeSpec(spec([namespace]), choices)).linux.namespaces).toEqual([
        namespace,
      ]);
    }
  });

  it.each(['', '[]', '{}', '{"linux":1}', 'null'])('%s is refused', async (text) => {
    await expect(completeSpec(text, choices)).rejects.toMatchObject({ kind: 'invalid' });
  });

  it('names its root file system', () => {
    expect(rootPath(spec([]))).toBe('/r');
    expect(() => rootPath('{"root":{}}')).toThrow(/root.path/);
  });
});

describe('statistics', () => {
  it('of memory are bytes', () => {
    const meminfo =
      'MemTotal:         228512 kB\nMemFree:          183062 kB\nSwapCached: 4 kB\nCached:             132 kB\n';
    expect(memoryField(meminfo, 'Cached')).toBe('135168');
    expect(memoryField(meminfo, 'MemTotal')).toBe(String(228512 * 1024));
    expect(memoryField(meminfo, 'Absent')).toBe('0');
  });

  it('of interfaces leave out the loopback', () => {
    const dev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:  123456      10    1    2    0     0          0         0   654321      20    3    4    0     0       0          0
`;
    expect(interfaceStats(dev)).toEqual([
      {
        name: 'eth0',
        ...{ rxBytes: '123456', rxPackets: '10', rxErrors: '1', rxDropped: '2' },
        ...{ txBytes: '654321', txPackets: '20', txErrors: '3', txDropped: '4' },
      },
    ]);
  });
});
