import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { hugePageSizes } from '../../../src/metrics/collect.ts';
import { deviceNames, filesystemOf } from '../../../src/metrics/devices.ts';

describe('hugePageSizes', () => {
  it('names the kernel’s sizes as files of cgroups do', async () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'berth-huge-'));
    for (const name of [
      'hugepages-2048kB',
      'hugepages-1048576kB',
      'hugepages-64kB',
      'hugepages-16777216kB',
      'other',
    ])
      mkdirSync(path.join(dir, name));
    expect((await hugePageSizes(dir)).sort()).toEqual(['16GB', '1GB', '2MB', '64KB']);
    rmSync(dir, { recursive: true });
    expect(await hugePageSizes(dir)).toEqual([]);
  });
});

describe('deviceNames', () => {
  it('finds each block device that the kernel lists, and has the numbers of others', () => {
    const name = deviceNames();
    const devices = readdirSync('/sys/class/block');
    expect(devices.length).toBeGreaterThan(0);
    for (const device of devices) {
      const [major = 0, minor = 0] = readFileSync(`/sys/class/block/${device}/dev`, 'utf8')
        .split(':')
        .map(Number);
      expect(name(major, minor)).toBe(`/dev/${device}`);
    }
    expect(name(4095, 1048575)).toBe('4095:1048575');
  });
});

describe('filesystemOf', () => {
  it('tells the size of the file system, and its device as stat does', async () => {
    const asked: string[] = [];
    const found = await filesystemOf('/proc', (major, minor) => {
      asked.push(`${major}:${minor}`);
      return 'x';
    });
    const [, , device] = (/^.* \/proc .*$/m.exec(readFileSync('/proc/self/mountinfo', 'utf8')) ?? [
      '',
    ])[0].split(' ');
    expect(asked).toEqual([device]);
    expect(found.device).toBe('x');
    const { bsize, blocks, files } = await statfs(tmpdir());
    expect(await filesystemOf(tmpdir(), () => '')).toMatchObject({
      sizeBytes: BigInt(bsize) * BigInt(blocks),
      inodes: BigInt(files),
    });
  });
});
