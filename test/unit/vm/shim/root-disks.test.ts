import { beforeEach, describe, expect, it } from 'vitest';
import { BerthError } from '../../../../src/errors.ts';
import type { GuestMount } from '../../../../src/vm/protocol/messages.ts';
import type { GuestAgent } from '../../../../src/vm/shim/machine.ts';
import { RootDisks } from '../../../../src/vm/shim/root-disks.ts';
import { type RootDisk, rootDisks } from '../../../../src/vm/shim/rootfs.ts';
import type { VmDisk } from '../../../../src/vm/types.ts';

const IMAGE: RootDisk = { path: '/image', type: 'erofs', readOnly: true };
const own = (path: string): RootDisk => ({ path, type: 'ext4', readOnly: false });

let done: string[];
let warnings: string[];
/** What fails, by how its line begins. */
let failing: Map<string, BerthError>;
let disks: RootDisks;

beforeEach(() => {
  done = [];
  warnings = [];
  failing = new Map();
  const act = (line: string): void => {
    for (const [beginning, problem] of failing) if (line.startsWith(beginning)) throw problem;
    done.push(line);
  };
  const vm = {
    addDisk: async ({ id, path, readOnly }: VmDisk) => {
      act(`add ${id} ${path} ${readOnly ? 'ro' : 'rw'}`);
      return `serial:${id}`;
    },
    removeDisk: async (id: string) => act(`take ${id}`),
  };
  const call = async (method: string, params: { add: GuestMount[]; target: string }): Promise<object> => {
    if (method === 'unmount') act(`unmount ${params.target}`);
    else for (const m of params.add) act(`mount ${m.type} ${m.source} ${m.target} ${m.options}`);
    return {};
  };
  const agent = { call } as unknown as GuestAgent;
  disks = new RootDisks(vm, agent, (_, message) => warnings.push(message));
});

describe('root file systems on disks', () => {
  it('share the disk of an image as long as one needs it', async () => {
    expect(await disks.attach('a', [IMAGE, own('/a')])).toBe('/run/berth/disks/a/root');
    const made = [
      'add root2 /image ro',
      'mount erofs serial:root2 /run/berth/disks/shared-1 ro',
      'add root3 /a rw',
      'mount ext4 serial:root3 /run/berth/disks/a/disk noinit_itable,discard',
      'mount overlay overlay /run/berth/disks/a/root lowerdir=/run/berth/disks/shared-1,' +
        'upperdir=/run/berth/disks/a/disk/upper,workdir=/run/berth/disks/a/disk/work',
    ];
    expect(done.splice(0)).toEqual(made);
    await disks.attach('b', [IMAGE, own('/b')]);
    expect(done.splice(0)[0]).toBe('add root4 /b rw');
    await disks.detach('a');
    await disks.detach('a');
    expect(done.splice(0)).toEqual([
      'unmount /run/berth/disks/a/root',
      'unmount /run/berth/disks/a/disk',
      'take root3',
    ]);
    await disks.detach('b');
    expect(done.slice(-3)).toEqual(['take root4', 'unmount /run/berth/disks/shared-1', 'take root2']);
  });

  it('are the disk itself where there is but one', async () => {
    expect(await disks.attach('a', [own('/a')])).toBe('/run/berth/disks/a/root');
    expect(done.at(-1)).toMatch(/^mount ext4 serial:root1 \/run\/berth\/disks\/a\/root /);
  });

  it('leave nothing when one cannot be had', async () => {
    failing.set('mount overlay', new BerthError('internal', 'no overlay'));
    await expect(disks.attach('a', [IMAGE, own('/a')])).rejects.toThrow('no overlay');
    expect(done.slice(4)).toEqual([
      'unmount /run/berth/disks/a/disk',
      'take root3',
      'unmount /run/berth/disks/shared-1',
      'take root2',
    ]);
  });

  it('stay where the guest does not let go, and say so unless it has ended', async () => {
    await disks.attach('a', [own('/a')]);
    failing.set('unmount', new BerthError('internal', 'busy'));
    await disks.detach('a');
    expect(done).not.toContain('take root1');
    expect(warnings).toEqual(['/run/berth/disks/a/root stays in the guest: busy']);
    await disks.attach('b', [own('/b')]);
    failing.set('unmount', new BerthError('unavailable', 'gone'));
    await disks.detach('b');
    expect(warnings).toHaveLength(1);
  });
});

describe('mounts of a root file system', () => {
  const mount = (type: string, source: string, ...options: string[]) => ({ type, source, options });
  const overlay = mount('format/mkdir/overlay', 'overlay', 'lowerdir={{ overlay 0 1 }}');

  it('are disks where a guest can mount them', () => {
    expect(rootDisks([mount('ext4', '/dev/mapper/x', 'rw')])).toEqual([own('/dev/mapper/x')]);
    expect(rootDisks([mount('erofs', '/image', 'loop'), mount('ext4', '/a', 'rw'), overlay])).toEqual([
      IMAGE,
      own('/a'),
    ]);
  });

  it.each([
    [[]],
    [[mount('overlay', 'overlay', 'lowerdir=/a:/b')]],
    [[mount('bind', '/a', 'rbind')]],
    [[mount('btrfs', '/dev/sda', 'subvol=/x')]],
    [[mount('erofs', '/image', 'ro'), mount('bind', '/a', 'rbind')]],
  ])('are the host’s otherwise: %j', (mounts) => {
    expect(rootDisks(mounts)).toBeUndefined();
  });

  it('are refused when two can be written to', () => {
    expect(() => rootDisks([mount('ext4', '/a', 'rw'), mount('ext4', '/b', 'rw')])).toThrow(
      /more than one disk/,
    );
  });
});
