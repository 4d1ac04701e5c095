import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { listMounts, unmount } from '../../src/sys/mount.ts';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX, busyboxArchive } from '../support/busybox.ts';
import { removeCgroups } from '../support/host.ts';
import { buildImage, layer } from '../support/images.ts';
import {
  containerConfig,
  IDLE,
  importArchive,
  type Pod,
  Pods,
  refusal,
  runs,
  SHARED_PID,
  sh,
  until,
} from '../support/pods.ts';
import { startFakeRegistry } from '../support/registry.ts';

const exec = promisify(execFile);
const PROGRAM = path.resolve(import.meta.dirname, '../../bin/berthd');
const CUT = 'localhost/berth-test/cut:1';
let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** Ends the daemon without warning, lets `meanwhile` happen, and starts it again. */
async function crash(meanwhile: () => unknown = () => {}): Promise<void> {
  await berthd.stop('SIGKILL');
  try {
    await meanwhile();
  } finally {
    await berthd.start();
  }
}

const at = (...names: string[]) => path.join(berthd.dir, ...names);

/** A pod for each state that a pod and a container can be in. */
async function population(): Promise<{ running: string; logged: string; pod: Pod }> {
  const labels = { app: 'x', $bigint: '12', 'line\nbreak': 'ü☃"\\' };
  const annotations = { json: '{"$bigint":"1"}', empty: '', big: 'x'.repeat(100_000) };
  const pod = await pods.run({ labels, annotations });
  const running = await pods.start(pod, {
    ...IDLE,
    labels,
    annotations,
    linux: { resources: { cpu_shares: 512, memory_limit_in_bytes: 64 << 20 } },
  });
  const logged = (await pods.runToEnd(pod, sh('echo said; exit 3', { labels }))).id;
  await pods.create(pod, { ...IDLE, annotations });
  const broken = await pods.create(pod, { command: ['no-such-command'] });
  await pods.create(pod, { command: ['no-such-command-either'] });
  await refusal(berthd.client.runtime('StartContainer', { container_id: broken }));
  const stopped = await pods.run({ metadata: { name: 'stopped', namespace: 'n', uid: '', attempt: 7 } });
  await pods.start(stopped);
  await pods.stopPod(stopped);
  await pods.run({
    hostname: '',
    linux: {
      cgroup_parent: berthd.cgroupParent,
      security_context: { namespace_options: { network: 'NODE', pid: 'NODE', ipc: 'NODE' } },
    },
  });
  return { running, logged, pod };
}

describe('a daemon that was killed', () => {
  it('lists everything as before, to the byte, and goes on with it', async () => {
    const { running, logged, pod } = await population();
    const before = await pods.everything();
    const pid = await pods.pid('container', running);
    await crash();
    expect(await pods.everything()).toEqual(before);
    await crash();
    expect(await pods.everything()).toEqual(before);
    expect(await pods.pid('container', running)).toBe(pid);
    expect(await pods.ask(running, 'echo exec')).toBe('exec');
    const { stats } = await berthd.client.runtime('ContainerStats', { container_id: running });
    expect(Number(stats?.memory?.usage_bytes?.value)).toBeGreaterThan(0);
    expect((await pods.log((await pods.status(logged)).log_path)).map(({ text }) => text)).toEqual(['said']);
    await berthd.client.runtime('ReopenContainerLog', { container_id: running });
    await pods.stop(running);
    expect(await pods.status(running)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
    expect((await pods.runToEnd(pod, sh('cat /etc/hostname'))).log).toBe(`${pod.config.hostname}\n`);
  });

  it('or told to end by SIGTERM leaves pods running, and its socket does not stay', async () => {
    const { running } = await population();
    const before = await pods.everything();
    const pid = await pods.pid('container', running);
    await berthd.stop('SIGTERM');
    expect(existsSync(at('berth.sock'))).toBe(false);
    expect(runs(pid)).toBe(true);
    await berthd.start();
    expect(await pods.everything()).toEqual(before);
  });

  it('or told to end while it starts leaves nothing of the start', async () => {
    const early = await Berthd.prepare();
    try {
      const child = spawn(PROGRAM, ['--config', early.configFile], { stdio: 'ignore' });
      const ended = once(child, 'exit');
      await until('it has begun', () => listMounts(path.join(early.dir, 'state')).length > 0);
      child.kill('SIGTERM');
      expect(await ended).toEqual([0, null]);
      expect(listMounts(early.dir)).toEqual([]);
    } finally {
      expect(await early.close()).toEqual([]);
    }
  });

  it('knows how containers ended meanwhile, and when', async () => {
    const pod = await pods.run();
    const go = at('go');
    const mounts = [{ host_path: at(), container_path: '/host' }];
    const waiting = (end: string, resources = {}) =>
      pods.start(
        pod,
        sh(`until test -e /host/go; do sleep 0.05; done; ${end}`, { mounts, linux: { resources } }),
      );
    const failing = await waiting('echo last words; exit 5');
    const killed = await waiting('sleep 100000');
    const limits = { memory_limit_in_bytes: 24 << 20, memory_swap_limit_in_bytes: 24 << 20 };
    const hungry = await waiting('exec dd if=/dev/zero of=/dev/null bs=200M count=1', limits);
    const pids = await Promise.all([failing, killed, hungry].map((id) => pods.pid('container', id)));
    let ended = 0;
    await crash(async () => {
      await writeFile(go, '');
      process.kill(pids[1] ?? 0, 'SIGKILL');
      await until('all have ended', () => !pids.some(runs));
      ended = Date.now();
      // The daemon comes later; what it saw last is not when they ended.
      await until('a second passes', () => Date.now() - ended > 1000);
    });
    await rm(go);
    for (const [id, code, reason] of [
      [failing, 5, 'Error'],
      [killed, 137, 'Error'],
      [hungry, 137, 'OOMKilled'],
    ] as const) {
      const status = await pods.status(id);
      expect(status).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: code, reason });
      expect(Number(BigInt(status.finished_at) / 1_000_000n)).toBeLessThanOrEqual(ended + 700);
      expect(BigInt(status.finished_at)).toBeGreaterThan(BigInt(status.started_at));
    }
    expect((await pods.log((await pods.status(failing)).log_path)).map(({ text }) => text)).toEqual([
      'last words',
    ]);
  });

  // What exists of a sandbox when the daemon dies, in the order in which it is made.
  it.each<[string, () => boolean]>([
    ['before anything was made', () => true],
    ['with its directory', () => below('state/sandboxes').length > 0],
    ['with its /dev/shm', () => mounted('shm')],
    ['with its network namespace', () => mounted('ns/net')],
    ['with its address', () => below(`ipam/berth-${berthd.tag}`).some((name) => /^\d+\./.test(name))],
    [
      'with its pause process',
      () => below('state/sandboxes').some((id) => existsSync(at('state/sandboxes', id, 'pid'))),
    ],
  ])(
    'while a sandbox was made, %s, leaves nothing that the retry would trip over',
    async (_name, reached) => {
      const config = pods.config({ linux: { security_context: SHARED_PID } });
      const call = berthd.client.runtime('RunPodSandbox', { config }).catch(() => undefined);
      while (!reached()) await turn();
      await crash();
      await call;
      const { items } = await berthd.client.runtime('ListPodSandbox', {});
      for (const { id } of items) expect(await pods.podStatus(id)).toMatchObject({ state: 'SANDBOX_READY' });
      const { pod_sandbox_id } = await berthd.client.runtime('RunPodSandbox', { config });
      const pod = { id: pod_sandbox_id, config };
      expect((await pods.runToEnd(pod, sh('cat /etc/hostname'))).log).toBe(`${config.hostname}\n`);
      expect((await berthd.client.runtime('ListPodSandbox', {})).items.length).toBe(1);
    },
  );

  it.each<[string, (id: string) => boolean]>([
    ['with its writable layer', () => below('root/containers').length > 0],
    ['with its root file system', () => mounted('rootfs')],
    ['with its spec', (id) => existsSync(at('state/containers', id, 'config.json'))],
    ['with its monitor', (id) => existsSync(at('state/containers', id, 'conmon.pid'))],
    ['with its process', (id) => existsSync(at('state/containers', id, 'pidfile'))],
  ])(
    'while a container was created, %s, leaves nothing that the retry would trip over',
    async (_name, reached) => {
      const pod = await pods.run();
      const config = containerConfig(sh('echo once; exec sleep 100000'));
      const request = { pod_sandbox_id: pod.id, config, sandbox_config: pod.config };
      const call = berthd.client.runtime('CreateContainer', request).catch(() => undefined);
      while (!reached(below('state/containers')[0] ?? 'none')) await turn();
      await crash();
      await call;
      const { containers } = await berthd.client.runtime('ListContainers', {});
      for (const { state } of containers) expect(state).toBe('CONTAINER_CREATED');
      const { container_id } = await berthd.client.runtime('CreateContainer', request);
      await berthd.client.runtime('StartContainer', { container_id });
      const { log_path } = await pods.status(container_id);
      await until('it runs', async () => (await pods.log(log_path)).length > 0);
      expect((await berthd.client.runtime('ListContainers', {})).containers.length).toBe(1);
    },
  );

  it('while containers, pods and their removal were under way, is asked again and finishes', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, sh("trap 'echo caught' TERM; echo ready; while :; do sleep 0.05; done"));
    const { log_path } = await pods.status(id);
    const said = async (word: string) => (await pods.log(log_path)).some(({ text }) => text === word);
    // Before the trap is set, the kernel drops the signal: it is the first process of its namespace.
    await until('the trap is set', () => said('ready'));
    const stop = pods.stop(id, 600).catch(() => {});
    await until('the stop has begun', () => said('caught'));
    await crash();
    await stop;
    expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
    await pods.stop(id, 0);
    expect((await pods.status(id)).exit_code).toBe(137);
    for (const call of ['StopPodSandbox', 'RemovePodSandbox'] as const) {
      const other = await pods.run({ linux: { security_context: SHARED_PID } });
      for (let i = 0; i < 3; i++) await pods.start(other);
      const pid = await pods.pid('pod', other.id);
      const asked = berthd.client.runtime(call, { pod_sandbox_id: other.id }).catch(() => {});
      while (runs(pid)) await turn();
      await crash();
      await asked;
      const { items } = await berthd.client.runtime('ListPodSandbox', { filter: { id: other.id } });
      for (const { state } of items) expect(state).toBe('SANDBOX_NOTREADY');
      await berthd.client.runtime(call, { pod_sandbox_id: other.id });
    }
  });

  it('while an image came in keeps none of it, and takes it again', async () => {
    const images = async () =>
      (await berthd.client.image('ListImages', {})).images.map(({ repo_tags }) => repo_tags);
    const stored = async () =>
      (
        await Promise.all(
          ['ingest', 'layers', 'content/sha256'].map((dir) => readdir(at('root/images', dir))),
        )
      ).map((names) => names.length);
    const before = await stored();
    const archive = await busyboxArchive(CUT, ['sh', '-c', 'cut']);
    const half = archive.subarray(0, archive.length / 2);
    const cut = berthd.client.importImage(
      (async function* () {
        yield { chunk: half };
        await until('the daemon is down', () => !existsSync(at('up')));
      })(),
    );
    await writeFile(at('up'), '');
    cut.catch(() => {});
    await until('some of it is stored', async () => (await stored()).join() !== before.join());
    await crash(() => rm(at('up')));
    await cut.catch(() => {});
    expect(await stored()).toEqual(before);
    expect(await images()).toEqual([[BUSYBOX]]);
    await importArchive(berthd, archive);
    expect((await images()).flat().sort()).toEqual([BUSYBOX, CUT]);
    await berthd.client.image('RemoveImage', { image: { image: CUT } });
    expect(await stored()).toEqual(before);
  });

  it('while an image was pulled resumes or forgets it, and pulls it then', async () => {
    const big = await layer([{ name: 'big', content: Buffer.alloc(3 << 20, 'b') }]);
    const image = buildImage([big]);
    let hold = true;
    const registry = await startFakeRegistry((request, response) => {
      if (!hold || !request.url?.includes('/blobs/') || !request.url.includes(bigDigest)) return false;
      response.writeHead(200, { 'content-length': big.blob.length });
      response.write(big.blob.subarray(0, 1 << 20));
      return true;
    });
    const bigDigest = [...image.blobs.entries()].find(([, blob]) => blob.equals(big.blob))?.[0] ?? '';
    try {
      registry.add('some/image', '1', image);
      const name = `${registry.host}/some/image:1`;
      await mkdir(at('certs.d', registry.host), { recursive: true });
      await writeFile(at('certs.d', registry.host, 'hosts.toml'), `server = "http://${registry.host}"\n`);
      const pull = berthd.client.image('PullImage', { image: { image: name } }).catch(() => {});
      await until('some of it is stored', () =>
        readdirSync(at('root/images/ingest'), { recursive: true }).some((file) => {
          const stat = statSync(at('root/images/ingest', String(file)), { throwIfNoEntry: false });
          return stat?.isFile() === true && stat.size > 0;
        }),
      );
      await crash();
      await pull;
      expect((await berthd.client.image('ImageStatus', { image: { image: name } })).image).toBe(null);
      hold = false;
      const { image_ref } = await berthd.client.image('PullImage', { image: { image: name } });
      expect(image_ref).toBe(image.id);
      await berthd.client.image('RemoveImage', { image: { image: name } });
      expect(await readdir(at('root/images/ingest'))).toEqual([]);
      expect(await readdir(at('root/images/content/sha256'))).not.toContain(
        bigDigest.slice('sha256:'.length),
      );
    } finally {
      await registry.stop();
    }
  });
});

describe('a process that is killed by hand', () => {
  it('as the pause makes its sandbox NOTREADY, also while the daemon is down', async () => {
    const shared = { linux: { security_context: SHARED_PID } };
    const [watched, unwatched] = [await pods.run(shared), await pods.run(shared)];
    const [unpinned, whole] = [await pods.run(), await pods.run()];
    const pins = String((await pods.info('pod', unpinned.id)).namespaces);
    const pids = [await pods.pid('pod', watched.id), await pods.pid('pod', unwatched.id)];
    const before = await pods.podStatus(watched);
    process.kill(pids[0] ?? 0, 'SIGKILL');
    await until('it is seen', async () => (await pods.podStatus(watched)).state === 'SANDBOX_NOTREADY');
    expect(await pods.podStatus(watched)).toEqual({ ...before, state: 'SANDBOX_NOTREADY' });
    await crash(async () => {
      process.kill(pids[1] ?? 0, 'SIGKILL');
      await until('it is gone', () => !runs(pids[1] ?? 0));
      // A pod without a pause process is what its pins hold.
      unmount(path.join(pins, 'net'));
    });
    const stateOf = async (pod: Pod) => (await pods.podStatus(pod)).state;
    expect(await Promise.all([unwatched, unpinned].map(stateOf))).toEqual(Array(2).fill('SANDBOX_NOTREADY'));
    expect(await stateOf(whole)).toBe('SANDBOX_READY');
    expect((await refusal(pods.create(unwatched))).kind).toBe('precondition');
  });

  it('as the monitor makes its container EXITED with 255, Unknown, and takes the container along', async () => {
    const pod = await pods.run();
    const [watched, unwatched] = [await pods.start(pod), await pods.start(pod)];
    const infos = [await pods.info('container', watched), await pods.info('container', unwatched)];
    process.kill(Number(infos[0]?.conmonPid), 'SIGKILL');
    expect(await pods.ended(watched)).toMatchObject({ exit_code: 255, reason: 'Unknown' });
    await until('it is gone', () => !runs(Number(infos[0]?.pid)));
    await crash(() => process.kill(Number(infos[1]?.conmonPid), 'SIGKILL'));
    expect(await pods.ended(unwatched)).toMatchObject({ exit_code: 255, reason: 'Unknown' });
    await until('it is gone', () => !runs(Number(infos[1]?.pid)));
  });
});

it('after a reboot containers are EXITED (255, Unknown), sandboxes NOTREADY, addresses free, logs there', async () => {
  const { running, logged, pod } = await population();
  const chatty = await pods.start(pod, sh('echo before; exec sleep 100000'));
  await until('it has spoken', async () => (await pods.log((await pods.status(chatty)).log_path)).length > 0);
  const before = await pods.everything();
  const ip = (await pods.podStatus(pod)).network?.ip ?? '';
  expect(await readdir(at('ipam', `berth-${berthd.tag}`))).toContain(ip);
  const pids: number[] = [];
  for (const { id } of before.containers) {
    const { pid, conmonPid } = await pods.info('container', id);
    pids.push(Number(conmonPid), Number(pid));
  }
  for (const { id } of before.pods) pids.push(await pods.pid('pod', id));
  await crash(() => reboot(pids.filter((one) => one > 0)));
  const after = await pods.everything();
  // All that is not about their state is as it was.
  const bare = ({ pods, containers }: typeof after) => ({
    pods: pods.map((p) => ({ ...p, state: '' })),
    containers: containers.map((c) => ({ ...c, state: '' })),
  });
  expect(bare(after)).toEqual(bare(before));
  expect(after.pods.map(({ state }) => state)).toEqual(after.pods.map(() => 'SANDBOX_NOTREADY'));
  expect(after.containers.map(({ state }) => state)).toEqual(after.containers.map(() => 'CONTAINER_EXITED'));
  expect((await pods.podStatus(pod)).network?.ip).toBe(ip);
  for (const id of [running, chatty]) {
    const status = await pods.status(id);
    expect(status).toMatchObject({ exit_code: 255, reason: 'Unknown' });
    expect(BigInt(status.finished_at)).toBeGreaterThan(BigInt(status.started_at));
  }
  expect(await pods.status(logged)).toMatchObject({ exit_code: 3, reason: 'Error' });
  expect((await pods.log((await pods.status(chatty)).log_path)).map(({ text }) => text)).toEqual(['before']);
  await until(
    'the address is free',
    async () => !(await readdir(at('ipam', `berth-${berthd.tag}`))).includes(ip),
  );
  // What the kubelet does next: a new attempt, then the old one's removal.
  const metadata = { ...pod.config.metadata, attempt: 1 };
  const again = await pods.run({ ...pod.config, metadata });
  expect((await pods.runToEnd(again, sh('exit 0'))).exit_code).toBe(0);
});

describe('two daemons', () => {
  it('one socket or one root refuses the second, and the first goes on', async () => {
    const pod = await pods.run();
    const same = await failing(berthd.configFile);
    expect(same.code).toBe(1);
    expect(same.stderr).toMatch(/^berthd: another berthd serves root = /);
    const other = at('other.toml');
    const text = await readFile(berthd.configFile, 'utf8');
    await writeFile(other, text.replace(/^(root|state) = .*$/gm, `$1 = "${at('other')}/$1"`));
    const socket = await failing(other);
    expect(socket.code).toBe(1);
    expect(socket.stderr).toMatch(/^berthd: listen: another daemon answers on .*berth\.sock/);
    // Only the daemon itself is gone; what it mounted went with it.
    expect(listMounts(at('other'))).toEqual([]);
    await rm(at('other'), { recursive: true });
    expect((await pods.podStatus(pod)).state).toBe('SANDBOX_READY');
    expect(statSync(at('berth.sock')).mode & 0o777).toBe(0o660);
  });

  it('a file that is no socket is not removed', async () => {
    const file = at('precious');
    await writeFile(file, 'data');
    const config = at('other.toml');
    const text = await readFile(berthd.configFile, 'utf8');
    await writeFile(
      config,
      text
        .replace(/^(root|state) = .*$/gm, `$1 = "${at('other')}/$1"`)
        .replace(berthd.endpoint, `unix://${file}`),
    );
    const said = await failing(config);
    expect(said.code).toBe(1);
    expect(said.stderr).toContain(file);
    expect(await readFile(file, 'utf8')).toBe('data');
    await rm(at('other'), { recursive: true });
  });

  it('side by side each have their own pods', async () => {
    const second = await Berthd.start();
    try {
      await second.importBusybox();
      const others = new Pods(second);
      const [mine, theirs] = [await pods.run(), await others.run()];
      const [a, b] = [await pods.start(mine), await others.start(theirs)];
      await crash();
      expect((await second.client.runtime('ListPodSandbox', {})).items.map(({ id }) => id)).toEqual([
        theirs.id,
      ]);
      expect((await berthd.client.runtime('ListPodSandbox', {})).items.map(({ id }) => id)).toEqual([
        mine.id,
      ]);
      await pods.removePod(mine);
      expect(await others.ask(b, 'echo on')).toBe('on');
      expect((await refusal(others.status(a))).kind).toBe('notFound');
    } finally {
      expect(await second.close()).toEqual([]);
    }
  });
});

/** Names in one of the daemon's directories. */
function below(dir: string): string[] {
  return existsSync(at(dir)) ? readdirSync(at(dir)) : [];
}

/** Whether something is mounted below the daemon's state at a path with such an end. */
function mounted(end: string): boolean {
  return listMounts(at('state')).some(({ mountpoint }) => mountpoint.endsWith(`/${end}`));
}

/** What a reboot does: no process, mount, cgroup or file of /run is left, and the kernel has another boot id. */
async function reboot(pids: number[]): Promise<void> {
  // All at once, as a power cut would, so that no monitor has time to write down what it saw.
  for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
    for (const pid of pids.filter(runs)) process.kill(pid, signal);
  }
  await until('all processes are gone', () => !pids.some(runs));
  for (const { mountpoint } of listMounts(at()).reverse()) unmount(mountpoint, { lazy: true });
  await until('the cgroups are gone', async () => (await removeCgroups(berthd.cgroupParent)).length === 0);
  await rm(at('state'), { recursive: true });
  const db = new DatabaseSync(at('root/berth.db'));
  const { changes } = db
    .prepare(`UPDATE sandboxes SET record = json_set(record, '$.bootId', 'of the boot before')`)
    .run();
  db.close();
  expect(Number(changes)).toBeGreaterThan(0);
}

/** Starts a daemon that ends by itself. */
async function failing(config: string): Promise<{ code: number; stderr: string }> {
  const { code, stderr } = await exec(PROGRAM, ['--config', config], { timeout: 20_000 }).then(
    () => ({ code: 0, stderr: 'it ended by itself' }),
    (e: { code: number; stderr: string }) => e,
  );
  return { code, stderr: stderr.split('\n').find((line) => line.startsWith('berthd:')) ?? stderr };
}
