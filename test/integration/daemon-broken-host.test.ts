import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { listMounts, MS_RDONLY, mount, unmount } from '../../src/sys/mount.ts';
import { Berthd } from '../support/berthd.ts';
import { DeadFileSystem } from '../support/fuse.ts';
import { leftovers } from '../support/leaks.ts';
import { IDLE, Pods, refusal, sh, until } from '../support/pods.ts';

let dir: string;
let berthd: Berthd;
let pods: Pods;
let dead: DeadFileSystem | undefined;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-broken-'));
  await mkdir(path.join(dir, 'dead'));
  await mkdir(path.join(dir, 'readonly'));
  berthd = await Berthd.start();
  pods = new Pods(berthd);
  await berthd.importBusybox();
});

afterEach(async () => {
  dead?.close();
  dead = undefined;
  expect(await berthd.removeAllPods()).toEqual([]);
});

afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await rm(dir, { recursive: true });
});

/** Lists are answered while something is stuck, and another pod lives. */
async function othersGoOn(): Promise<void> {
  for (const method of ['ListContainers', 'ListPodSandbox', 'ListContainerStats', 'Status'] as const) {
    await berthd.client.runtime(method, {}, { timeoutMs: 10_000 });
  }
  const pod = await pods.run();
  const id = await pods.start(pod);
  expect(await pods.ask(id, 'echo others')).toBe('others');
  await pods.removePod(pod);
}

const noTasks = async () => (await berthd.client.info()).cleanup_tasks.length === 0;

describe('a volume on a dead network file system', () => {
  it('fails one create, with its path in the message', async () => {
    dead = DeadFileSystem.mount(path.join(dir, 'dead'), { answersRoot: false });
    const host_path = path.join(dir, 'dead/volume');
    const pod = await pods.run();
    const create = refusal(pods.create(pod, { ...IDLE, mounts: [{ container_path: '/v', host_path }] }));
    await othersGoOn();
    expect(await create).toEqual({
      kind: 'deadline',
      message: `mount sources do not answer: ${host_path}`,
    });
    await pods.removePod(pod);
    expect(await leftovers(berthd)).toEqual([]);
  });
});

describe('a process in uninterruptible sleep', () => {
  it('makes its stop fail by name, holds neither name nor others, and goes when it can', async () => {
    const host_path = path.join(dir, 'dead');
    dead = DeadFileSystem.mount(host_path, { answersRoot: true });
    const pod = await pods.run();
    const mounts = [{ container_path: '/v', host_path }];
    const id = await pods.start(pod, { command: ['cat', '/v/file'], mounts });
    const stop = refusal(pods.stop(id));
    await othersGoOn();
    expect(await stop).toMatchObject({
      kind: 'deadline',
      message: expect.stringContaining('SIGKILL did not end'),
    });
    await pods.removePod(pod);
    // The same name and attempt, as the kubelet would ask after a forced deletion.
    const again = { id: '', config: pod.config };
    again.id = (await berthd.client.runtime('RunPodSandbox', { config: pod.config })).pod_sandbox_id;
    expect((await berthd.client.info()).cleanup_tasks).toMatchObject([
      { kind: 'container: removal', target: id },
      { kind: 'sandbox: removal', target: pod.id },
    ]);
    await pods.removePod(again);
    dead.close();
    await until('the to-do list is empty', noTasks, 60_000);
    expect(await leftovers(berthd)).toEqual([]);
  });
});

describe('a log directory that cannot be written', () => {
  it('fails the create, naming it', async () => {
    const at = path.join(dir, 'readonly');
    mount('tmpfs', at, 'tmpfs', MS_RDONLY);
    try {
      const log_directory = path.join(at, 'logs');
      const pod = await pods.run({ log_directory });
      const refused = await refusal(pods.create(pod));
      expect(refused.message).toContain(log_directory);
      expect(refused.message).toMatch(/read-only file system/i);
      await pods.removePod(pod);
    } finally {
      unmount(at, { lazy: true });
    }
    expect(await leftovers(berthd)).toEqual([]);
  });
});

describe('a start that fails leaves no mount', () => {
  it.each([
    ['metrics', 'enabled = true\n'],
    ['streaming', ''],
  ])('when the port of %s is taken', async (table, keys) => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    const other = await Berthd.prepare({ tables: `[${table}]\n${keys}port = ${port}` });
    try {
      // It may answer for a moment before it listens for streams.
      await other.start().catch(() => {});
      await until('it has ended', async () => !other.isRunning);
      expect(await other.log()).toMatch(new RegExp(`^berthd: .*${port}`, 'm'));
      expect(listMounts(other.dir)).toEqual([]);
    } finally {
      taken.close();
      await other.close();
    }
  });
});

describe('a full disk', () => {
  it('fails what needs room, and an end meanwhile is recorded when there is room again', async () => {
    const full = await Berthd.prepare();
    const root = path.join(full.dir, 'root');
    await mkdir(root);
    mount('tmpfs', root, 'tmpfs', 0, 'size=24m');
    try {
      await full.start();
      await full.importBusybox();
      const theirs = new Pods(full);
      const pod = await theirs.run();
      const go = path.join(full.dir, 'go');
      await mkdir(go);
      const id = await theirs.start(pod, {
        ...sh('until [ -e /go/now ]; do sleep 0.05; done; exit 7'),
        mounts: [{ container_path: '/go', host_path: go }],
      });
      const filler = path.join(root, 'filler');
      await writeFile(filler, Buffer.alloc(64 << 20)).catch(() => {});
      const refused = await refusal(theirs.run());
      expect(refused.kind).toBe('exhausted');
      expect(refused.message).toContain(root);
      await refusal(theirs.create(pod));
      await full.client.runtime('ListContainers', {}, { timeoutMs: 10_000 });
      await writeFile(path.join(go, 'now'), '');
      await until('the end was seen', async () =>
        (await full.log()).includes('an exit could not be recorded'),
      );
      expect(await theirs.status(id)).toMatchObject({ state: 'CONTAINER_RUNNING' });
      await rm(filler);
      expect(await theirs.ended(id)).toMatchObject({ exit_code: 7, reason: 'Error' });
      await theirs.run();
      expect(await full.removeAllPods()).toEqual([`mount: ${root}`]);
    } finally {
      await full.stop();
      unmount(root, { lazy: true });
      await full.close();
    }
  });
});
