import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { getFile, putFiles } from '../../../../src/vm/agent/files.ts';
import { checkParams, type Params } from '../../../../src/vm/protocol/messages.ts';
import { batches, Copies, copyKind } from '../../../../src/vm/shim/copies.ts';
import type { GuestAgent } from '../../../../src/vm/shim/machine.ts';
import { eventually } from '../../../support/eventually.ts';

const GUEST_DIR = '/run/berth/volumes';

let dir: string;
let warnings: string[];
let copies: Copies;
/** Has the guest know one volume. @returns its path there */
async function use(id: string, source: string, destination: string): Promise<string> {
  const [volume] = await copies.add(id, [{ source, destination, readonly: false, follows: false }]);
  if (volume === undefined || volume === 'image') return expect.fail('no volume');
  return volume.path;
}
/** A path of the guest's, where this test has its guest. */
const inGuest = (at: string) => path.join(dir, 'guest', path.relative(GUEST_DIR, at));

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-copies-'));
  warnings = [];
  const call = async (method: 'putFiles' | 'getFile', params: unknown): Promise<object> => {
    if (method === 'getFile') {
      const request = checkParams(method, params) as Params<'getFile'>;
      return getFile({ ...request, path: inGuest(request.path) });
    }
    const request = checkParams(method, params) as Params<'putFiles'>;
    await putFiles({ ...request, target: inGuest(request.target) });
    return {};
  };
  const agent = { call } as unknown as GuestAgent;
  copies = new Copies(agent, (_, message) => warnings.push(message));
});

afterEach(async () => {
  copies.close();
  await rm(dir, { recursive: true });
});

describe('copies of volumes', () => {
  it('are like the host’s, as a whole, and go with what uses them', async () => {
    const source = path.join(dir, 'pods/uid/volumes/kubernetes.io~secret/s');
    await mkdir(path.join(source, '..1'), { recursive: true });
    await writeFile(path.join(source, '..1/key'), 'old', { mode: 0o640 });
    await writeFile(path.join(source, '..1/large'), 'x'.repeat(1_000_000));
    await symlink('..1', path.join(source, '..data'));
    await symlink('..data/key', path.join(source, 'key'));
    const target = inGuest(await use('c', source, '/s'));
    expect(await readFile(path.join(target, 'key'), 'utf8')).toBe('old');
    expect(await readFile(path.join(target, '..1/large'), 'utf8')).toHaveLength(1_000_000);
    expect(await use('d', source, '/elsewhere')).toBe(`${GUEST_DIR}/${path.basename(target)}`);

    await mkdir(path.join(source, '..2'));
    await writeFile(path.join(source, '..2/key'), 'new');
    await symlink('..2', path.join(source, '..tmp'));
    await rename(path.join(source, '..tmp'), path.join(source, '..data'));
    await rm(path.join(source, '..1'), { recursive: true });
    await eventually(async () => expect(await readdir(target)).toEqual(['..2', '..data', 'key']));
    expect(await readlink(path.join(target, '..data'))).toBe('..2');
    expect(await readFile(path.join(target, 'key'), 'utf8')).toBe('new');
    expect(warnings).toEqual([]);
  });

  it('of a single file are changed in place', async () => {
    const source = path.join(dir, 'hosts');
    await writeFile(source, 'one');
    const target = inGuest(await use('c', source, '/etc/hosts'));
    expect(await readFile(target, 'utf8')).toBe('one');
    await writeFile(source, '2');
    await eventually(async () => expect(await readFile(target, 'utf8')).toBe('2'));
  });

  it('bring the last words of a container back, and of no other', async () => {
    const words = path.join(dir, 'pods/uid/containers/name/1');
    await mkdir(path.dirname(words), { recursive: true });
    await writeFile(words, '');
    const target = inGuest(await use('c', words, '/dev/termination-log'));
    await writeFile(target, 'bye');
    await copies.bringBack('d');
    expect(await readFile(words, 'utf8')).toBe('');
    await copies.bringBack('c');
    expect(await readFile(words, 'utf8')).toBe('bye');
    // Nothing but the file that the kubelet has made is written to.
    await rm(words);
    await symlink(path.join(dir, 'elsewhere'), words);
    await copies.bringBack('c');
    expect(warnings).toEqual([expect.stringContaining('the termination message is lost')]);
    expect(await readdir(dir)).not.toContain('elsewhere');
  });

  it('keep what a container has in a directory of the guest’s own', async () => {
    const source = path.join(dir, 'pods/uid/volumes/kubernetes.io~empty-dir/e');
    await mkdir(source, { recursive: true });
    await writeFile(path.join(source, 'of-the-host'), '');
    const target = inGuest(await use('c', source, '/e'));
    expect(await readdir(target)).toEqual([]);
    await writeFile(path.join(target, 'file'), '');
    copies.remove('c');
    expect(inGuest(await use('d', source, '/e'))).toBe(target);
    expect(await readdir(target)).toEqual(['file']);
  });

  it('are refused when they are too large', async () => {
    const source = path.join(dir, 'hosts');
    await writeFile(source, Buffer.alloc((8 << 20) + 1));
    await expect(use('c', source, '/etc/hosts')).rejects.toMatchObject({ kind: 'exhausted' });
  });
});

const POD = '/var/lib/kubelet/pods/1-2';

it.each([
  [`${POD}/volumes/kubernetes.io~configmap/c`, '/c', 'copied'],
  [`${POD}/volumes/kubernetes.io~projected/kube-api-access-x`, '/var/run/secrets', 'copied'],
  [`${POD}/volume-subpaths/c/name/0`, '/c/file', 'copied'],
  [`${POD}/etc-hosts`, '/etc/hosts', 'copied'],
  ['/run/berth/sandboxes/x/resolv.conf', '/etc/resolv.conf', 'copied'],
  [`${POD}/containers/name/ab12`, '/dev/termination-log', 'message'],
  [`${POD}/volumes/kubernetes.io~empty-dir/e`, '/e', 'guest'],
  [`/var/lib/berth/containers/${'a'.repeat(64)}/volumes/0`, '/data', 'image'],
])('%s at %s is %s', (source, destination, kind) => {
  expect(copyKind(source, destination)).toBe(kind);
});

it.each(['/', '/srv/data', `${POD}/volumes/kubernetes.io~csi/pvc/mount`, `${POD}/volumes`])(
  '%s is refused by name',
  (source) => {
    expect(() => copyKind(source, '/x')).toThrow(`mounts: /x (${source}) is not possible`);
  },
);

it('fits files into messages', () => {
  const file = (name: string, bytes: number) => ({
    ...{ path: name, kind: 'file' as const, mode: 0o644, uid: 0, gid: 0 },
    data: Buffer.alloc(bytes, name).toString('base64'),
  });
  const files = [file('a', 10), file('b', 1_000_000), file('c', 10), file('d', 0)];
  const messages = batches(files);
  for (const message of messages) expect(JSON.stringify(message).length).toBeLessThan(1 << 20);
  const together = new Map<string, Buffer[]>();
  for (const { path: name, data, append } of messages.flat()) {
    expect(append ?? false).toBe(together.has(name));
    together.set(name, [...(together.get(name) ?? []), Buffer.from(data ?? '', 'base64')]);
  }
  expect([...together].map(([name, parts]) => [name, Buffer.concat(parts).length])).toEqual([
    ['a', 10],
    ['b', 1_000_000],
    ['c', 10],
    ['d', 0],
  ]);
});
