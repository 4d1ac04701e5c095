import { describe, expect, test } from 'vitest';
import type { Mount } from '../../../src/container/config.ts';
import { containerMounts } from '../../../src/spec/mounts.ts';
import { mount } from './configs.ts';

const FILES = { hosts: '/sb/hosts', hostname: '/sb/hostname', resolvConf: '/sb/resolv', shm: '/sb/shm' };
const plain = { privileged: false, privilegedPod: false, cgroupOptions: [] };

function plan(mounts: Mount[], over: { privileged?: boolean; readonlyRootfs?: boolean; rro?: boolean } = {}) {
  const system = { ...plain, privileged: over.privileged ?? false };
  return containerMounts(
    mounts,
    FILES,
    system,
    over.readonlyRootfs ?? false,
    over.rro === false ? { recursiveReadOnlyMounts: 'too old' } : {},
  );
}

const destinations = (mounts: Mount[]): string[] => plan(mounts).mounts.map((m) => m.destination);
const find = (p: ReturnType<typeof plan>, path: string) => p.mounts.find((m) => m.destination === path);

describe('containerMounts', () => {
  test('mounts the kernel file systems, the files of the sandbox, then what was asked for', () => {
    expect(destinations([mount()])).toEqual([
      '/proc',
      '/dev',
      '/dev/pts',
      '/dev/mqueue',
      '/sys',
      '/sys/fs/cgroup',
      '/dev/shm',
      '/etc/hosts',
      '/etc/hostname',
      '/etc/resolv.conf',
      '/data',
    ]);
  });

  test('shallow before deep, equal depth as sent', () => {
    const asked = ['/a/b/c', '/z', '/a/b', '/b', '/a//x/'].map((containerPath) => mount({ containerPath }));
    expect(destinations(asked).slice(-5)).toEqual(['/z', '/b', '/a/b', '/a/x', '/a/b/c']);
  });

  test('a request replaces what berth mounts there', () => {
    const p = plan([
      mount({ containerPath: '/etc/hosts/', hostPath: '/kubelet/hosts' }),
      mount({ containerPath: '/sys' }),
    ]);
    expect(p.mounts.filter((m) => m.destination === '/etc/hosts')).toHaveLength(1);
    expect(find(p, '/etc/hosts')?.source).toBe('/kubelet/hosts');
    expect(find(p, '/sys')?.type).toBe('bind');
  });

  test('a request for /dev replaces all below it', () => {
    const p = plan([mount({ containerPath: '/dev', hostPath: '/dev' })]);
    expect(p.mounts.filter((m) => m.destination.startsWith('/dev')).map((m) => m.type)).toEqual(['bind']);
  });

  test.each<[Partial<Mount>, string[], string | undefined]>([
    [{}, ['rbind', 'rprivate', 'rw'], undefined],
    [{ readonly: true }, ['rbind', 'rprivate', 'ro'], undefined],
    [{ readonly: true, recursiveReadOnly: true }, ['rbind', 'rprivate', 'rro'], undefined],
    [{ propagation: 'hostToContainer' }, ['rbind', 'rslave', 'rw'], 'rslave'],
    [{ propagation: 'bidirectional' }, ['rbind', 'rshared', 'rw'], 'rshared'],
  ])('%j', (over, options, propagation) => {
    const p = plan([mount(over)]);
    expect(find(p, '/data')?.options).toEqual(options);
    expect(p.rootfsPropagation).toBe(propagation);
  });

  test('an image is mounted read-only', () => {
    const image = { image: 'x', userSpecifiedImage: '', annotations: {}, runtimeHandler: '' };
    expect(find(plan([mount({ image })]), '/data')?.options).toContain('ro');
  });

  test('privileged: sysfs and cgroups are writable', () => {
    for (const path of ['/sys', '/sys/fs/cgroup']) {
      expect(find(plan([], { privileged: true }), path)?.options).toContain('rw');
      expect(find(plan([]), path)?.options).toContain('ro');
    }
  });

  test('in a privileged pod no container makes the one sysfs of all read-only', () => {
    const inPrivileged = (mounts: Mount[]) =>
      containerMounts(mounts, {}, { ...plain, privilegedPod: true }, false, {});
    expect(find(inPrivileged([]), '/sys')?.options).toContain('rw');
    expect(inPrivileged([]).readonlyPaths).toEqual(['/sys']);
    expect(inPrivileged([mount({ containerPath: '/sys' })]).readonlyPaths).toEqual([]);
    expect(plan([]).readonlyPaths).toEqual([]);
  });

  test('options of the one cgroup2 superblock are repeated', () => {
    const p = containerMounts([], {}, { ...plain, cgroupOptions: ['nsdelegate'] }, false, {});
    expect(find(p, '/sys/fs/cgroup')?.options).toContain('nsdelegate');
  });

  test('with a read-only root the files of the sandbox are read-only, its shm is not', () => {
    const p = plan([], { readonlyRootfs: true });
    for (const path of ['/etc/hosts', '/etc/hostname', '/etc/resolv.conf']) {
      expect(find(p, path)?.options).toContain('ro');
    }
    expect(find(p, '/dev/shm')?.options).toContain('rw');
  });

  test.each<[Partial<Mount>, RegExp]>([
    [{ containerPath: 'data' }, /^config\.mounts\[0\]\.container_path: must be an absolute/],
    [{ containerPath: '/a/..' }, /container_path: must not be the root/],
    [{ hostPath: '' }, /host_path: must be an absolute/],
    [{ hostPath: '/a\0b' }, /host_path: must not contain NUL/],
    [{ recursiveReadOnly: true }, /recursive_read_only: needs readonly/],
    [
      { readonly: true, recursiveReadOnly: true, propagation: 'hostToContainer' },
      /needs private propagation/,
    ],
  ])('%j is refused', (over, message) => {
    expect(() => plan([mount(over)])).toThrow(message);
  });

  test('recursive read-only is never silently weakened', () => {
    const asked = [mount({ readonly: true, recursiveReadOnly: true })];
    expect(() => plan(asked, { rro: false })).toThrow(/^RROUnsupported: .*recursive_read_only: too old$/);
  });
});
