import { existsSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import { listMounts, unmount } from '../../src/sys/mount.ts';
import { Berthd } from '../support/berthd.ts';
import { IDLE, OWN_PID, type Pod, Pods, refusal, runs, until } from '../support/pods.ts';

const LXCFS = '/usr/bin/lxcfs';
const MIB = 1024 * 1024;
/** The node's programs with what they need. */
const NODE = ['/usr', '/lib', '/lib64'];
const ANNOTATION = 'io.berth.resource-view';
const installed = existsSync(LXCFS) && existsSync('/dev/fuse');
if (!installed) console.warn(`no ${LXCFS} or no FUSE, so views of resources are not tested`);

describe.runIf(installed)('a container that sees its own share of the machine', () => {
  let berthd: Berthd;
  let pods: Pods;
  let dir: string;

  beforeAll(async () => {
    const prepared = await Berthd.prepare({
      tables:
        '[runtimes.runc]\npath = "/usr/sbin/runc"\n[runtimes.view]\npath = "/usr/sbin/runc"\nresource_view = true\n',
    });
    // Elsewhere, as lxcfs outlives the daemon, below whose directory nothing may stay.
    dir = `/tmp/berth-lxcfs-${prepared.tag}`;
    await appendFile(prepared.configFile, `[resource_view]\nlxcfs_dir = "${dir}"\nlxcfs = "${LXCFS}"\n`);
    berthd = prepared;
    await berthd.start();
    await berthd.importBusybox();
    pods = new Pods(berthd);
  });
  afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
  afterAll(async () => {
    await endLxcfs();
    for (const { mountpoint } of listMounts(dir).reverse()) unmount(mountpoint, { lazy: true });
    for (const file of [dir, `${dir}.pid`]) await rm(file, { recursive: true });
    expect(await berthd.close()).toEqual([]);
  });

  const lxcfsPid = () => Number(readFileSync(`${dir}.pid`, 'utf8').trim());
  /** Ends the test's own lxcfs as a crash would. */
  async function endLxcfs(): Promise<number> {
    const pid = lxcfsPid();
    if (runs(pid)) process.kill(pid, 'SIGKILL');
    await until('lxcfs has ended', () => !runs(pid));
    return pid;
  }
  const newPod = (handler: string, annotations: Record<string, string> = {}) =>
    pods.run({ annotations } satisfies PodSandboxConfig, handler);
  const start = (pod: Pod, own: readonly string[] = []) =>
    pods.start(pod, {
      ...IDLE,
      mounts: own.map((at) => ({ host_path: at, container_path: at, readonly: true })),
      linux: {
        security_context: OWN_PID,
        resources: { memory_limit_in_bytes: 96 * MIB, cpu_quota: 100_000, cpu_period: 100_000 },
      },
    });
  const memory = async (id: string) =>
    Number(/^MemTotal: +(\d+) kB/m.exec(await pods.ask(id, 'cat /proc/meminfo'))?.[1]) / 1024;
  const hostMemory = () =>
    Math.floor(Number(/^MemTotal: +(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) / 1024);

  it('finds its limits in every file that programs look at', async () => {
    const id = await start(await newPod('view'), NODE);
    expect(await memory(id)).toBe(96);
    expect(await pods.ask(id, 'grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online')).toBe(
      '1\n0',
    );
    // The node's own: busybox's ask the kernel instead (sysinfo(2)), for which there is no view.
    expect(await pods.ask(id, "/usr/bin/free -m | awk '/^Mem/{print $2}'")).toBe('96');
    const top = await pods.ask(id, 'TERM=dumb /usr/bin/top -b -n 1 -w 200');
    expect(top).toMatch(/^MiB Mem : +96\.0 total/m);
    const uptime = Number((await pods.ask(id, 'cat /proc/uptime')).split(' ')[0]);
    expect(uptime).toBeLessThan(60);
    // One processor beside the sum of all; a handful of threads; as much swap in either file.
    expect(await pods.ask(id, "grep -o '^cpu[0-9]*' /proc/stat")).toBe('cpu\ncpu0');
    expect(await pods.ask(id, 'cat /proc/loadavg')).toMatch(/^(\d+\.\d\d ){3}\d\/\d \d+$/);
    const swap =
      "awk 'NR > 1 {kib += $3} END {print kib + 0}' /proc/swaps; awk '/^SwapTotal/{print $2}' /proc/meminfo";
    const [swaps, swapTotal] = (await pods.ask(id, swap)).split('\n');
    expect(swaps).toBe(swapTotal);
    const mounts = await pods.ask(id, 'awk \'$3=="fuse.lxcfs"{print $2, $4}\' /proc/mounts');
    for (const file of ['cpuinfo', 'diskstats', 'loadavg', 'meminfo', 'stat', 'swaps', 'uptime'])
      expect(mounts).toMatch(new RegExp(`^/proc/${file} ro,`, 'm'));
    // Not by editing what the caller asked for.
    expect((await pods.status(id)).mounts.map(({ container_path }) => container_path)).toEqual(NODE);
  });

  it('follows its limits when they change', async () => {
    const id = await start(await newPod('view'));
    await berthd.client.runtime('UpdateContainerResources', {
      container_id: id,
      linux: { memory_limit_in_bytes: 160 * MIB, cpu_quota: 50_000, cpu_period: 100_000 },
    });
    expect(await memory(id)).toBe(160);
  });

  it('is as its pod wants, whatever the handler’s configuration', async () => {
    const [without, plain, asked] = [
      await start(await newPod('view', { [ANNOTATION]: 'false' })),
      await start(await newPod('runc')),
      await start(await newPod('runc', { [ANNOTATION]: 'true' })),
    ];
    expect([without, plain].length).toBe(2);
    for (const id of [without, plain]) expect(Math.floor(await memory(id))).toBe(hostMemory());
    expect(await memory(asked)).toBe(96);
    const wrong = await newPod('runc', { [ANNOTATION]: 'yes' });
    expect(await refusal(start(wrong))).toEqual({
      kind: 'invalid',
      message: `config.annotations["${ANNOTATION}"]: must be "true" or "false"`,
    });
  });

  it('goes on after lxcfs died, which is started again', { timeout: 60_000 }, async () => {
    const pod = await newPod('view');
    const ids = [await start(pod), await start(pod)];
    const before = await endLxcfs();
    for (const id of ids) {
      await until('the container sees its share again', async () => (await memory(id).catch(() => 0)) === 96);
    }
    expect(lxcfsPid()).not.toBe(before);
    expect(await pods.ask(ids[0] ?? '', 'cat /sys/devices/system/cpu/online')).toBe('0');
    expect(await memory(await start(pod))).toBe(96);
  });

  it('goes on after berthd and lxcfs died, one after the other', { timeout: 60_000 }, async () => {
    const id = await start(await newPod('view'));
    await berthd.stop('SIGKILL');
    await endLxcfs();
    await berthd.start();
    await until('the container sees its share again', async () => (await memory(id).catch(() => 0)) === 96);
  });
});

describe('without an lxcfs', () => {
  let berthd: Berthd;
  afterEach(async () => expect(await berthd.close()).toEqual([]));

  const begin = async (required: boolean): Promise<Pods> => {
    const prepared = await Berthd.prepare({
      tables: '[runtimes.runc]\npath = "/usr/sbin/runc"\nresource_view = true\n',
    });
    const dir = path.join(prepared.dir, 'no-lxcfs');
    await mkdir(dir);
    await appendFile(prepared.configFile, `[resource_view]\nlxcfs_dir = "${dir}"\nrequired = ${required}\n`);
    berthd = prepared;
    await berthd.start();
    await berthd.importBusybox();
    return new Pods(berthd);
  };

  it('a container that is to have a view is refused, saying why', async () => {
    const pods = await begin(true);
    const said = await refusal(pods.create(await pods.run()));
    expect(said).toEqual({
      kind: 'precondition',
      message: `resource view: no lxcfs answers at ${berthd.dir}/no-lxcfs; start it`,
    });
  });

  it('it sees the whole machine where that is configured, and the log says so', async () => {
    const pods = await begin(false);
    const id = await pods.start(await pods.run());
    expect(await pods.ask(id, 'grep -c lxcfs /proc/mounts || true')).toBe('0');
    expect(readFileSync(path.join(berthd.dir, 'log'), 'utf8')).toMatch(
      /"reason":"resource view: no lxcfs answers[^\n]*the container sees the whole machine/,
    );
  });
});
