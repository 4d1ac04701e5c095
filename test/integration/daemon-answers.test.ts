import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { sharedDirectory } from '../support/host.ts';
import { buildImage, layer } from '../support/images.ts';
import { IDLE, mountsOfEveryKind, Pods, refusal } from '../support/pods.ts';
import { startRegistry } from '../support/registry.ts';

const LABELS = { app: 'web', odd: 'ünïcode ☃ "quoted"\n' };

let berthd: Berthd;
let pods: Pods;
let shared: Awaited<ReturnType<typeof sharedDirectory>>;

beforeAll(async () => {
  shared = await sharedDirectory();
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await shared.remove();
});

it('what was said comes back as it was said, after a restart too', async () => {
  const annotations = { 'io.kubernetes.container.hash': 'a1b2', 'json"': '{"$bigint":"1"}', empty: '' };
  const resources = {
    cpu_period: '100000',
    cpu_quota: '20000',
    cpu_shares: '512',
    memory_limit_in_bytes: String(64 << 20),
    oom_score_adj: '500',
  };
  const metadata = { name: 'name-ü', attempt: 4_294_967_295 };
  const image = {
    image: BUSYBOX,
    user_specified_image: 'busybox',
    annotations: { x: 'y' },
    runtime_handler: '',
  };
  const mounts = mountsOfEveryKind(shared.dir);
  const pod = await pods.run({ labels: LABELS, annotations });
  const id = await pods.start(pod, {
    ...IDLE,
    metadata,
    image,
    labels: LABELS,
    annotations,
    mounts,
    linux: { resources },
    stop_signal: 'SIGRTMINPLUS3',
    log_path: 'name-ü/0.log',
  });
  const before = await pods.everything();
  const busybox = (await berthd.client.image('ImageStatus', { image: { image: BUSYBOX } })).image?.id ?? '';
  const said = await pods.status(id);
  expect(said).toMatchObject({
    metadata,
    image,
    labels: LABELS,
    annotations,
    mounts: mounts.map((m) => (m.image === null ? m : { ...m, image: { ...m.image, image_ref: busybox } })),
    resources: { linux: resources },
    stop_signal: 'SIGRTMINPLUS3',
    log_path: path.join(pod.config.log_directory ?? '', 'name-ü/0.log'),
    user: { linux: { uid: '0', gid: '0' } },
  });
  await berthd.stop('SIGKILL');
  await berthd.start();
  expect(await pods.everything()).toEqual(before);
});

it('Version, Status and the images’ file system have what the kubelet would fall over', async () => {
  const { client } = berthd;
  expect(await client.runtime('Version', {})).toEqual({
    version: '0.1.0',
    runtime_name: 'berth',
    runtime_version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    runtime_api_version: 'v1',
  });
  const { status, runtime_handlers } = await client.runtime('Status', {});
  const conditions = Object.fromEntries((status?.conditions ?? []).map((c) => [c.type, c.status]));
  expect(conditions).toEqual({ RuntimeReady: true, NetworkReady: true });
  expect(runtime_handlers.map(({ name }) => name)).toEqual(['', 'runc']);
  for (const { features } of runtime_handlers) expect(features).not.toBe(null);
  expect((await client.runtime('RuntimeConfig', {})).linux).toEqual({ cgroup_driver: 'CGROUPFS' });
  const update = { runtime_config: { network_config: { pod_cidr: '10.0.0.0/24' } } };
  expect(await client.runtime('UpdateRuntimeConfig', update)).toEqual({});
  const { image_filesystems, container_filesystems } = await client.image('ImageFsInfo', {});
  const [fs] = image_filesystems;
  expect(container_filesystems).toEqual([fs]);
  expect(existsSync(fs?.fs_id?.mountpoint ?? '')).toBe(true);
  expect(Number(fs?.used_bytes?.value)).toBeGreaterThan(100_000);
  expect(Number(fs?.inodes_used?.value)).toBeGreaterThan(10);
  expect(BigInt(fs?.timestamp ?? 0)).toBeGreaterThan(1_600_000_000_000_000_000n);
});

it('a log path, times and messages are there in every state, without a log directory too', async () => {
  const { client } = berthd;
  const pod = await pods.run({ log_directory: '' });
  const running = await pods.start(pod, { ...IDLE, log_path: '' });
  // The kubelet makes its symlink only if the file is there when the start returns.
  expect(existsSync((await pods.status(running)).log_path)).toBe(true);
  await pods.create(pod);
  await pods.runToEnd(pod, { command: ['true'] });
  const broken = await pods.create(pod, { command: ['no-such-command'] });
  await refusal(client.runtime('StartContainer', { container_id: broken }));
  const { statuses, podStatuses } = await pods.everything();
  expect(statuses.map(({ state }) => state).sort()).toEqual([
    'CONTAINER_CREATED',
    'CONTAINER_EXITED',
    'CONTAINER_EXITED',
    'CONTAINER_RUNNING',
  ]);
  for (const status of statuses) {
    expect(path.isAbsolute(status.log_path), status.state).toBe(true);
    expect(status.image?.image).toBe(BUSYBOX);
    expect(status.metadata?.name).toMatch(/^c-/);
    const [created, started, finished] = [status.created_at, status.started_at, status.finished_at].map(
      BigInt,
    );
    expect(created).toBeGreaterThan(1_600_000_000_000_000_000n);
    if (status.state !== 'CONTAINER_CREATED') expect(started).toBeGreaterThanOrEqual(created ?? 0n);
    if (status.state === 'CONTAINER_EXITED') expect(finished).toBeGreaterThanOrEqual(started ?? 0n);
  }
  const { stats } = await client.runtime('ListContainerStats', {});
  expect(stats.map((item) => item.attributes?.id)).toContain(running);
  for (const { attributes } of stats) expect(attributes?.metadata?.name).toMatch(/^c-/);
  expect(podStatuses[0]?.network?.ip).toMatch(/^10\./);
});

it('a container that could not be made and is stopped before its start tells why', async () => {
  const pod = await pods.run();
  const id = await pods.create(pod, { command: ['no-such-command'] });
  await pods.stopPod(pod);
  expect(await pods.status(id)).toMatchObject({
    state: 'CONTAINER_EXITED',
    exit_code: 128,
    reason: 'StartError',
    message: expect.stringContaining('no-such-command'),
  });
});

it('ids are whole: a prefix is no id', async () => {
  const pod = await pods.run();
  const id = await pods.start(pod);
  expect((await refusal(pods.status(id.slice(0, 13)))).kind).toBe('notFound');
  expect((await refusal(pods.podStatus(pod.id.slice(0, 63)))).kind).toBe('notFound');
  // As for any that is absent: done, and nothing happened.
  await pods.stop(id.slice(0, 63));
  await pods.removePod({ ...pod, id: pod.id.slice(0, 13) });
  expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
  expect(
    (await berthd.client.runtime('ListContainers', { filter: { id: id.slice(0, 63) } })).containers,
  ).toEqual([]);
});

describe('images', () => {
  it('have one id everywhere, by whatever name they are asked for', async () => {
    const registry = await startRegistry();
    try {
      const certs = path.join(berthd.dir, 'certs.d', registry.host);
      await mkdir(certs, { recursive: true });
      await writeFile(path.join(certs, 'hosts.toml'), `server = "http://${registry.host}"\n`);
      const built = buildImage([await layer([{ name: 'a', content: 'a' }])], {
        config: { Cmd: ['/a'], User: '12' },
      });
      await registry.push('some/image', '1', built);
      await registry.push('some/image', '2', built);
      const names = ['1', '2'].map((tag) => `${registry.host}/some/image:${tag}`);
      const { client } = berthd;
      const refs: string[] = [];
      for (const image of names) refs.push((await client.image('PullImage', { image: { image } })).image_ref);
      expect(refs).toEqual([built.id, built.id]);
      const digest = `${registry.host}/some/image@${built.manifest.digest}`;
      for (const image of [...names, digest, built.id]) {
        const status = (await client.image('ImageStatus', { image: { image } })).image;
        expect(status).toMatchObject({
          id: built.id,
          repo_tags: names,
          repo_digests: [digest],
          uid: { value: '12' },
        });
        expect(Number(status?.size)).toBeGreaterThan(0);
        const { images } = await client.image('ListImages', { filter: { image: { image } } });
        expect(images).toEqual([status]);
      }
      // As the kubelet does: by the id that the pull returned, with what the user wrote beside it.
      const spec = {
        image: built.id,
        user_specified_image: names[0] ?? '',
        annotations: {},
        runtime_handler: '',
      };
      const pod = await pods.run();
      const id = await pods.create(pod, { image: spec, command: ['/a'] });
      const status = await pods.status(id);
      const [listed] = (await client.runtime('ListContainers', {})).containers;
      for (const told of [status, listed])
        expect(told).toMatchObject({ image_id: built.id, image_ref: built.id, image: spec });
      // It goes with all its names, whichever is said; a container that uses it keeps the content.
      await client.image('RemoveImage', { image: { image: names[0] ?? '' } });
      for (const image of [...names, digest, built.id])
        expect((await client.image('ImageStatus', { image: { image } })).image, image).toBe(null);
      expect(await pods.status(id)).toEqual(status);
      await pods.removeContainer(id);
    } finally {
      await registry.stop();
    }
  });

  it.each(['localhost/no/such:image', `sha256:${'0'.repeat(64)}`, `localhost/no@sha256:${'0'.repeat(64)}`])(
    'that are absent are no error: %s',
    async (image) => {
      const { client } = berthd;
      expect(await client.image('ImageStatus', { image: { image } })).toMatchObject({ image: null });
      expect(await client.image('RemoveImage', { image: { image } })).toEqual({});
      expect((await client.image('ListImages', { filter: { image: { image } } })).images).toEqual([]);
    },
  );
});
