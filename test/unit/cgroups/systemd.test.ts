import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { defaultDriver } from '../../../cgroups/index.ts';
import { listToBytes, v1Properties, v2Properties } from '../../../cgroups/systemd/properties.ts';
import { setPropertiesArgs, startScopeArgs, systemdUnits } from '../../../cgroups/systemd/units.ts';
import { V2Manager } from '../../../cgroups/v2/manager.ts';

const dir = mkdtempSync(join(tmpdir(), 'berth-systemd-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** A stand-in for busctl that records its arguments, one a line. */
function busctl(name: string, tail: string): { path: string; args: () => string[] } {
  const path = join(dir, name);
  writeFileSync(path, `#!/bin/sh\nprintf '%s\\n' "$@" > ${path}.args\n${tail}\n`);
  chmodSync(path, 0o755);
  return { path, args: () => readFileSync(`${path}.args`, 'utf8').trim().split('\n') };
}

describe('properties', () => {
  it('of v2 limits', () => {
    expect(
      v2Properties(
        {
          cpuShares: 1024n,
          cpuQuota: 25_500n,
          memoryLimitBytes: 1000n,
          memorySwapLimitBytes: 1500n,
          pidsLimit: -1n,
          cpusetCpus: '0-3,8',
          unified: {
            'memory.high': '900',
            'memory.low': 'max',
            'io.max': '8:0 rbps=1',
            'cpu.max': 'max 50000',
          },
        },
        { cpuPeriod: 50_000n },
      ),
    ).toEqual([
      ['CPUWeight', 't', '100'],
      ['CPUQuotaPeriodUSec', 't', '50000'],
      ['CPUQuotaPerSecUSec', 't', '510000'],
      ['MemoryMax', 't', '1000'],
      ['MemorySwapMax', 't', '500'],
      ['TasksMax', 't', '18446744073709551615'],
      ['AllowedCPUs', 'ay', '2', '15', '1'],
      ['MemoryHigh', 't', '900'],
      ['MemoryLow', 't', '18446744073709551615'],
      ['CPUQuotaPeriodUSec', 't', '50000'],
      ['CPUQuotaPerSecUSec', 't', '18446744073709551615'],
    ]);
  });

  it('of v1 limits; a quota of part of a percent is rounded up', () => {
    expect(
      v1Properties({ cpuShares: 2n, cpuQuota: 1001n, memoryLimitBytes: -1n, cpusetCpus: '0' }, {}),
    ).toEqual([
      ['CPUShares', 't', '2'],
      ['CPUQuotaPeriodUSec', 't', '100000'],
      ['CPUQuotaPerSecUSec', 't', '20000'],
      ['MemoryLimit', 't', '18446744073709551615'],
    ]);
  });

  it('of CPU lists', () => {
    expect(listToBytes('9')).toEqual([0, 2]);
    for (const bad of ['', 'a', '3-1', '0-99999', '1,,2', '-1'])
      expect(() => listToBytes(bad)).toThrow(/list of CPUs/);
  });
});

describe('busctl', () => {
  it('gets the limits of a scope, and nothing for a cgroup that is no unit', async () => {
    const fake = busctl('ok', 'exit 0');
    const units = systemdUnits({ busctl: fake.path });
    await units.set('/a.slice/berth-x.scope/inner', [['MemoryMax', 't', '1']]);
    expect(existsSync(`${fake.path}.args`)).toBe(false);
    await units.set('/a.slice/berth-x.scope', [['MemoryMax', 't', '1']]);
    expect(fake.args()).toEqual(setPropertiesArgs('berth-x.scope', [['MemoryMax', 't', '1']]));
    expect(fake.args().slice(-6)).toEqual(['berth-x.scope', 'true', '1', 'MemoryMax', 't', '1']);
  });

  it('is asked for a scope, and waited for until the process is in it', async () => {
    const fake = busctl('starts', 'exit 0');
    const places = ['0::/system.slice/berth.service', '0::/a.slice/a-b.slice/berth-x.scope'];
    const units = systemdUnits({ busctl: fake.path, cgroupsOf: () => places.shift() ?? '' });
    await units.startScope('/a.slice/a-b.slice/berth-x.scope', 42);
    expect(places).toEqual([]);
    const args = fake.args().join(' ');
    expect(fake.args()).toEqual(startScopeArgs('a-b.slice', 'berth-x.scope', 42));
    expect(args).toContain('Manager StartTransientUnit ssa(sv)a(sa(sv)) berth-x.scope fail 11 ');
    expect(args).toContain(' Slice s a-b.slice PIDs au 1 42 Delegate b true ');
    expect(args).toMatch(/ TasksMax t 18446744073709551615 0$/);
    expect(startScopeArgs('-.slice', 'y.scope', 1)).toContain('-.slice');
  });

  it('is quoted when it refuses', async () => {
    const units = systemdUnits({
      busctl: busctl('refuses', 'echo "Call failed: Unit x not loaded" >&2; exit 1').path,
    });
    await expect(units.set('/x.scope', [['MemoryMax', 't', '1']])).rejects.toMatchObject({
      code: 'EIO',
      message: expect.stringContaining('Unit x not loaded'),
    });
  });

  it('hears of limits before the files get them, and owns slices and scopes', async () => {
    const root = join(dir, 'root');
    cpSync(fileURLToPath(new URL('../../fixtures/cgroup-v2-from-docs', import.meta.url)), root, {
      recursive: true,
    });
    cpSync(join(root, 'pod'), join(root, 'x.scope'), { recursive: true });
    const fake = busctl('order', `cat ${root}/x.scope/pids.max > ${dir}/seen`);
    const manager = new V2Manager(root, systemdUnits({ busctl: fake.path }));
    await manager.update('/x.scope', { pidsLimit: 2048n });
    expect(readFileSync(join(dir, 'seen'), 'utf8')).toBe('1024\n');
    expect(readFileSync(join(root, 'x.scope/pids.max'), 'utf8').trim()).toBe('2048');
    expect(manager.missing('/new.slice/y.scope')).toEqual([]);
    rmSync(`${fake.path}.args`);
    await expect(manager.update('/x.scope', { memoryLimitBytes: 1n })).rejects.toMatchObject({
      code: 'EBUSY',
    });
    expect(existsSync(`${fake.path}.args`)).toBe(false);
  });
});

it('is the default driver exactly where systemd runs', () => {
  expect(defaultDriver(join(dir, 'absent'))).toBe('cgroupfs');
  expect(defaultDriver(dir)).toBe('systemd');
});
