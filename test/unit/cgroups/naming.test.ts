import { describe, expect, it } from 'vitest';
import { CgroupError, cgroupName } from '../../../cgroups/index.ts';
import { expandSlice } from '../../../cgroups/systemd/slice.ts';

const id = 'ab'.repeat(32);
const name = (driver: 'cgroupfs' | 'systemd', parent: string) =>
  cgroupName({ driver, parent, id, prefix: 'berth' });

describe('cgroupfs', () => {
  it.each([
    ['/kubepods/besteffort/podUID', '/kubepods/besteffort/podUID'],
    ['kubepods//burstable/./podUID/', '/kubepods/burstable/podUID'],
    ['', '/berth'],
    ['/', '/berth'],
  ])('puts the container of parent %j below %s', (parent, path) => {
    expect(name('cgroupfs', parent)).toEqual({
      cgroupsPath: `${path}/${id}`,
      parent: path,
      path: `${path}/${id}`,
    });
  });

  it.each(['/a/../b', '..', '/a/\n', '/a\0b', `/${'x'.repeat(256)}`, '/a'.repeat(3000)])(
    'refuses %j',
    (parent) => {
      expect(() => name('cgroupfs', parent)).toThrow(CgroupError);
    },
  );

  it('says that a slice means the other driver', () => {
    expect(() => name('cgroupfs', 'kubepods-pod1.slice')).toThrow(/systemd slice.*cgroupfs/);
  });
});

describe('systemd', () => {
  it('nests slices by their dashes and names the scope', () => {
    const path = '/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podX_1.slice';
    const expected = {
      cgroupsPath: `kubepods-besteffort-podX_1.slice:berth:${id}`,
      parent: path,
      path: `${path}/berth-${id}.scope`,
    };
    expect(name('systemd', 'kubepods-besteffort-podX_1.slice')).toEqual(expected);
    expect(name('systemd', path)).toEqual(expected);
  });

  it('uses system.slice without a parent, and the root for -.slice', () => {
    expect(name('systemd', '').path).toBe(`/system.slice/berth-${id}.scope`);
    expect(name('systemd', '-.slice')).toMatchObject({ parent: '/', path: `/berth-${id}.scope` });
  });

  it.each([
    '/kubepods/podX',
    'a--b.slice',
    '-a.slice',
    '.slice',
    '/wrong.slice/a-b.slice',
    'a b.slice',
    '../a.slice',
  ])('refuses parent %j', (parent) => {
    expect(() => name('systemd', parent)).toThrow(CgroupError);
  });

  it('says what a parent that is no slice should look like', () => {
    expect(() => name('systemd', '/kubepods/podX')).toThrow(/not a systemd slice.*kubepods-burstable\.slice/);
  });

  it('leaves the id after the last dash, where the kubelet and cAdvisor look for it', () => {
    const leaf = name('systemd', 'kubepods.slice').path.split('/').pop() ?? '';
    expect(leaf.slice(leaf.lastIndexOf('-') + 1, -'.scope'.length)).toBe(id);
    expect(expandSlice('a-b-c.slice')).toBe('/a.slice/a-b.slice/a-b-c.slice');
  });
});

it.each(['', '../x', 'a/b', '-x', 'a:b', 'x'.repeat(200)])('refuses the id %j', (bad) => {
  expect(() => cgroupName({ driver: 'cgroupfs', parent: '', id: bad, prefix: 'berth' })).toThrow(CgroupError);
});
