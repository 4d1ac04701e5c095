import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bindTree } from '../../src/sys/idmap.ts';
import {
  bindMount,
  listMounts,
  MS_PRIVATE,
  MS_SHARED,
  mount,
  parseMountinfo,
  unmount,
} from '../../src/sys/mount.ts';
import { identify } from '../../src/sys/process-identity.ts';
import { makeShare, removeShare } from '../../src/vm/shim/share.ts';
import { SharedVolumes } from '../../src/vm/shim/volumes.ts';
import { Virtiofsd, virtiofsdKind } from '../../src/vm/storage/virtiofsd.ts';
import { eventually } from '../support/eventually.ts';

const PROGRAM = '/usr/lib/qemu/virtiofsd';

let dir: string;
let shared: string;
let servers: Virtiofsd[];

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-vmfs-'));
  shared = path.join(dir, 'shared');
  await mkdir(shared);
  bindMount(shared, shared);
  mount(null, shared, null, MS_PRIVATE);
  mount(null, shared, null, MS_SHARED);
  servers = [];
});

afterEach(async () => {
  for (const server of servers) await server.stop(soon());
  unmount(path.join(shared, 'volume'), { lazy: true });
  unmount(shared, { lazy: true });
  await rm(dir, { recursive: true });
});

const soon = () => AbortSignal.timeout(10_000);

async function start(): Promise<Virtiofsd> {
  const server = await Virtiofsd.start({
    program: PROGRAM,
    kind: 'c',
    cache: 'auto',
    dir: shared,
    socket: path.join(dir, 'fs.sock'),
    logFile: path.join(dir, 'fs.log'),
    cgroups: [],
  });
  servers.push(server);
  return server;
}

/** Like a hypervisor: it comes, and goes. */
async function connected(server: Virtiofsd) {
  const socket = connect(path.join(dir, 'fs.sock'));
  // When it has a namespace of its own with the shared directory as its root, it is ready.
  const pid = await eventually(async () => {
    const text = await readFile(`/proc/${server.process.pid}/task/${server.process.pid}/children`, 'utf8');
    const child = Number(text.split(' ')[0]);
    expect(child).toBeGreaterThan(0);
    const mounts = parseMountinfo(await readFile(`/proc/${child}/mountinfo`, 'utf8'));
    expect(mounts.some(({ mountpoint, root }) => mountpoint === '/' && root.endsWith('/shared'))).toBe(true);
    return child;
  });
  return { socket, pid };
}

describe('virtiofsd', () => {
  it('is known by its version', async () => {
    expect(await virtiofsdKind(PROGRAM, soon())).toBe('c');
    await expect(virtiofsdKind('/bin/true', soon())).rejects.toMatchObject({ kind: 'invalid' });
  });

  it('sees what is mounted and unmounted later, with all below it, and read-only what is', async () => {
    const server = await start();
    const { pid, socket } = await connected(server);
    const [source, volume] = [path.join(dir, 'source'), path.join(shared, 'volume')];
    await mkdir(path.join(source, 'inner'), { recursive: true });
    await mkdir(volume);
    mount('tmpfs', path.join(source, 'inner'), 'tmpfs', 0);
    await writeFile(path.join(source, 'file'), 'content');
    const inside = (name: string) => `/proc/${pid}/root/volume/${name}`;
    const seen = async () =>
      parseMountinfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8'))
        .map(({ mountpoint }) => mountpoint)
        .filter((at) => at.startsWith('/volume'));
    try {
      bindTree(source, volume, { readonly: true, follow: false });
      expect(await seen()).toEqual(['/volume', '/volume/inner']);
      expect(await readFile(inside('file'), 'utf8')).toBe('content');
      await expect(writeFile(inside('file'), 'x')).rejects.toMatchObject({ code: 'EROFS' });
      await writeFile(inside('inner/file'), 'x');
      for (const name of ['inner', '']) unmount(path.join(volume, name), { lazy: true });
      expect(await seen()).toEqual([]);

      bindTree(source, volume, { readonly: 'recursive', follow: true });
      await expect(writeFile(inside('inner/file'), 'y')).rejects.toMatchObject({ code: 'EROFS' });
    } finally {
      unmount(path.join(volume, 'inner'), { lazy: true });
      unmount(path.join(source, 'inner'), { lazy: true });
    }
    socket.destroy();
  });

  it('ends with its hypervisor', async () => {
    const server = await start();
    const { socket, pid } = await connected(server);
    const file = identify(pid);
    socket.destroy();
    expect((await server.ended).code).toBe(0);
    await eventually(() => expect(file && existsSync(`/proc/${pid}`)).toBe(false));
  });

  it('is gone with its child when it is stopped, or killed from outside', async () => {
    const server = await start();
    const { pid } = await connected(server);
    await server.stop(soon());
    await server.stop(soon());
    await eventually(() => expect(existsSync(`/proc/${pid}`)).toBe(false));
    await rm(path.join(dir, 'fs.sock'));

    const other = await start();
    const { pid: child } = await connected(other);
    process.kill(child, 'SIGKILL');
    expect((await other.ended).reason).toMatch(/^virtiofsd: /);
  });

  it('says why it does not run', async () => {
    await rm(shared, { recursive: true }).catch(() => {});
    unmount(shared);
    await rm(shared, { recursive: true });
    const server = await start();
    connect(path.join(dir, 'fs.sock')).on('error', () => {});
    expect((await server.ended).reason).toMatch(/virtiofsd: .*No such file/);
  });
});

describe('volumes of several containers', () => {
  it('are shared once, unless they would see different things', async () => {
    const share = { points: path.join(dir, 'points'), shared: path.join(dir, 'other') };
    await makeShare(share);
    /** What the guest has mounted. */
    const mounted = new Set<string>();
    const guest = {
      bind: async (_source: string, target: string) => mounted.add(target),
      unmount: async (target: string) => mounted.delete(target),
    };
    const volumes = new SharedVolumes(share, guest);
    const [source, empty] = [path.join(dir, 'source'), path.join(dir, 'kubernetes.io~empty-dir/e')];
    for (const at of [path.join(source, 'inner'), empty]) await mkdir(at, { recursive: true });
    const add = async (id: string, readonly: boolean, of = source, follows = false) =>
      (await volumes.add(id, [{ source: of, destination: '/v', readonly, follows }]))[0];
    const places = () => listMounts(path.join(share.shared, 'volumes')).length;
    const first = await add('a', true);
    expect(first).toMatchObject({ readonly: true });
    const writable = await add('b', false);
    expect(writable).toEqual({ path: '/run/berth/volumes/1', readonly: false });
    // The guest may write to it already.
    expect(await add('c', true)).toEqual({ path: writable?.path, readonly: true });
    expect((await add('d', true, source, true))?.path).not.toBe(writable?.path);
    // The pod's own, whichever comes first.
    const own = await add('a', true, empty);
    expect(await add('b', false, empty)).toEqual({ path: own?.path, readonly: false });
    expect(places()).toBe(4);
    expect(mounted.size).toBe(4);
    mount('tmpfs', path.join(source, 'inner'), 'tmpfs', 0);
    try {
      // What is mounted below it now, the others do not see; and only the top of it is read-only.
      expect(await add('e', true)).toEqual({
        path: expect.not.stringMatching(`${writable?.path}$`),
        readonly: false,
      });
      await expect(writeFile(path.join(share.shared, 'volumes/4/x'), '')).rejects.toMatchObject({
        code: 'EROFS',
      });
      await writeFile(path.join(share.shared, 'volumes/4/inner/x'), '');
    } finally {
      for (const id of ['a', 'a', 'e']) await volumes.remove(id);
      unmount(path.join(source, 'inner'), {});
    }
    expect(places()).toBe(3);
    for (const id of ['b', 'c', 'd']) await volumes.remove(id);
    expect(places()).toBe(0);
    expect([...mounted]).toEqual([]);
    expect(await readdir(path.join(share.points, 'volumes'))).toEqual([]);
    // A guest has nothing to fill there.
    await expect(writeFile(path.join(share.shared, 'x'), '')).rejects.toMatchObject({ code: 'EROFS' });
    await removeShare(share);
    await removeShare(share);
    expect(Object.values(share).filter((place) => existsSync(place))).toEqual([]);
  });
});
