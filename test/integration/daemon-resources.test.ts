import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinuxContainerResources } from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { Berthd } from '../support/berthd.ts';
import { IDLE, OWN_PID, type Pod, Pods, refusal, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;
let pod: Pod;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const newPod = async () => (pod = await pods.run());
const limited = (resources: LinuxContainerResources) => ({ linux: { resources, security_context: OWN_PID } });
/** A file of the container's cgroup on the host. */
const cgroupFile = async (id: string, controller: string, file: string) => {
  const { cgroup } = await pods.info('container', id);
  return readFileSync(`/sys/fs/cgroup/${controller}${cgroup}/${file}`, 'utf8').trim();
};

describe('resources', () => {
  it('are in the cgroup’s files and in the status, as given, and follow an update', async () => {
    await newPod();
    const given = {
      cpu_shares: 512,
      cpu_period: 50_000,
      cpu_quota: 25_000,
      cpuset_cpus: '0',
      memory_limit_in_bytes: 96 << 20,
      oom_score_adj: 321,
    };
    const id = await pods.start(pod, { ...IDLE, ...limited(given) });
    const text = (o: Record<string, unknown>) =>
      Object.fromEntries(Object.entries(o).map(([k, v]) => [k, String(v)]));
    const files = async () => ({
      shares: await cgroupFile(id, 'cpu', 'cpu.shares'),
      period: await cgroupFile(id, 'cpu', 'cpu.cfs_period_us'),
      quota: await cgroupFile(id, 'cpu', 'cpu.cfs_quota_us'),
      cpus: await cgroupFile(id, 'cpuset', 'cpuset.cpus'),
      memory: await cgroupFile(id, 'memory', 'memory.limit_in_bytes'),
    });
    expect(await files()).toEqual({
      shares: '512',
      period: '50000',
      quota: '25000',
      cpus: '0',
      memory: String(96 << 20),
    });
    expect(await pods.ask(id, 'cat /proc/self/oom_score_adj /proc/1/oom_score_adj; nproc')).toBe(
      '321\n321\n1',
    );
    expect((await pods.status(id)).resources?.linux).toMatchObject(text(given));
    const update = (linux: LinuxContainerResources) =>
      berthd.client.runtime('UpdateContainerResources', { container_id: id, linux });
    await update({ memory_limit_in_bytes: 48 << 20, cpu_quota: -1 });
    expect(await files()).toEqual({
      shares: '512',
      period: '50000',
      quota: '-1',
      cpus: '0',
      memory: String(48 << 20),
    });
    await update({
      cpu_shares: 2,
      cpu_quota: 100_000,
      cpu_period: 100_000,
      cpuset_cpus: '0-1',
      memory_limit_in_bytes: 200 << 20,
    });
    expect(await files()).toEqual({
      shares: '2',
      period: '100000',
      quota: '100000',
      cpus: '0-1',
      memory: String(200 << 20),
    });
    const now = {
      ...given,
      cpu_shares: 2,
      cpu_quota: 100_000,
      cpu_period: 100_000,
      cpuset_cpus: '0-1',
      memory_limit_in_bytes: 200 << 20,
    };
    expect((await pods.status(id)).resources?.linux).toMatchObject(text(now));
    await pods.stop(id);
    expect((await refusal(update({ cpu_shares: 4 }))).kind).toBe('precondition');
    expect((await pods.status(id)).resources?.linux).toMatchObject(text(now));
  });

  it('a limit below what is in use is refused and changes nothing; one that is in the way of nobody works before the start', async () => {
    await newPod();
    const id = await pods.create(pod, {
      ...sh('dd if=/dev/zero bs=40M count=1 | sleep 100000'),
      ...limited({ memory_limit_in_bytes: 80 << 20 }),
    });
    const update = (linux: LinuxContainerResources) =>
      berthd.client.runtime('UpdateContainerResources', { container_id: id, linux });
    await update({ memory_limit_in_bytes: 120 << 20 });
    expect(await cgroupFile(id, 'memory', 'memory.limit_in_bytes')).toBe(String(120 << 20));
    await berthd.client.runtime('StartContainer', { container_id: id });
    await until(
      'memory is in use',
      async () => Number(await cgroupFile(id, 'memory', 'memory.usage_in_bytes')) > 40 << 20,
    );
    expect((await refusal(update({ memory_limit_in_bytes: 20 << 20 }))).kind).toBe('precondition');
    expect(await cgroupFile(id, 'memory', 'memory.limit_in_bytes')).toBe(String(120 << 20));
    const { resources, state } = await pods.status(id);
    expect([resources?.linux?.memory_limit_in_bytes, state]).toEqual([
      String(120 << 20),
      'CONTAINER_RUNNING',
    ]);
  });

  it('oom_score_adj that the daemon may not set is as low as it may', async () => {
    await newPod();
    const id = await pods.start(pod, { ...IDLE, ...limited({ oom_score_adj: -999 }) });
    expect(Number(await pods.ask(id, 'cat /proc/1/oom_score_adj'))).toBeLessThanOrEqual(
      Number(readFileSync('/proc/self/oom_score_adj', 'utf8')),
    );
    expect((await pods.status(id)).resources?.linux?.oom_score_adj).toBe('-999');
  });

  it('stats are what a known use makes of them', async () => {
    await newPod();
    const hold = sh('dd if=/dev/zero bs=40M count=1 2>/dev/null | sleep 100000', {
      ...limited({ memory_limit_in_bytes: 100 << 20 }),
      labels: { app: 'x' },
    });
    const id = await pods.start(pod, hold);
    const usage = async () => Number(await cgroupFile(id, 'memory', 'memory.usage_in_bytes'));
    await until('memory is in use', async () => (await usage()) > 40 << 20);
    const stats = async () => (await berthd.client.runtime('ContainerStats', { container_id: id })).stats;
    const before = Date.now();
    const first = await stats();
    const number = (v: { value: string } | null | undefined) => Number(v?.value);
    expect(first?.attributes).toMatchObject({ id, labels: { app: 'x' } });
    expect(Number(BigInt(first?.memory?.timestamp ?? 0) / 1_000_000n)).toBeGreaterThanOrEqual(before - 1);
    for (const bytes of [number(first?.memory?.usage_bytes), number(first?.memory?.working_set_bytes)]) {
      expect(bytes).toBeGreaterThan(40 << 20);
      expect(bytes).toBeLessThan(56 << 20);
    }
    expect(number(first?.memory?.rss_bytes)).toBeGreaterThan(39 << 20);
    expect(number(first?.memory?.available_bytes)).toBe(
      (100 << 20) - number(first?.memory?.working_set_bytes),
    );
    expect(number(first?.memory?.page_faults)).toBeGreaterThan(0);
    // Pages of a file that can be dropped are use, but not working set.
    await pods.ask(id, 'dd if=/dev/zero of=/file bs=1M count=24 2>/dev/null; sync');
    const cached = await stats();
    expect(number(cached?.memory?.usage_bytes)).toBeGreaterThan(
      number(first?.memory?.usage_bytes) + (20 << 20),
    );
    expect(number(cached?.memory?.working_set_bytes)).toBeLessThan(
      number(cached?.memory?.usage_bytes) - (10 << 20),
    );
    // Half a second of one processor's time, in nanoseconds.
    const cpu = number(cached?.cpu?.usage_core_nano_seconds);
    await pods.ask(
      id,
      'i=0; while [ $(awk "{print \\$14+\\$15+\\$16+\\$17}" /proc/$$/stat) -lt 50 ]; do i=$((i+1)); done',
    );
    const busy = await stats();
    const grown = number(busy?.cpu?.usage_core_nano_seconds) - cpu;
    expect(grown).toBeGreaterThan(450_000_000);
    expect(grown).toBeLessThan(5_000_000_000);
    expect(number(busy?.cpu?.usage_nano_cores)).toBeGreaterThan(0);
    expect(number(busy?.cpu?.usage_nano_cores)).toBeLessThan(2_500_000_000);
  });

  it('stats of the writable layer count what the container wrote; lists filter; ended ones have none', async () => {
    await newPod();
    const other = await pods.run();
    const id = await pods.start(
      pod,
      sh(
        'dd if=/dev/urandom of=/file bs=1M count=5 2>/dev/null; mkdir /a; touch /a/b; touch /ready; exec sleep 100000',
      ),
    );
    const second = await pods.start(other, { ...IDLE, labels: { app: 'y' } });
    const { id: ended } = await pods.runToEnd(pod, sh('exit 0'));
    await until('it has written', async () => (await pods.exec(id, ['test', '-e', '/ready'])).code === 0);
    const { stats } = await berthd.client.runtime('ContainerStats', { container_id: id });
    const layer = stats?.writable_layer;
    expect(Number(layer?.used_bytes?.value)).toBeGreaterThanOrEqual(5 << 20);
    expect(Number(layer?.used_bytes?.value)).toBeLessThan((5 << 20) + (1 << 20));
    expect(Number(layer?.inodes_used?.value)).toBeGreaterThanOrEqual(4);
    expect(Number(layer?.inodes_used?.value)).toBeLessThan(20);
    const mountpoint = layer?.fs_id?.mountpoint ?? '';
    expect((await stat(mountpoint)).isDirectory()).toBe(true);
    const { image_filesystems } = await berthd.client.image('ImageFsInfo', {});
    expect(image_filesystems[0]?.fs_id?.mountpoint).toBe(mountpoint);
    const list = async (filter: object) =>
      (await berthd.client.runtime('ListContainerStats', { filter })).stats
        .map((s) => s.attributes?.id)
        .sort();
    expect(await list({})).toEqual([id, second].sort());
    expect(await list({ pod_sandbox_id: other.id })).toEqual([second]);
    expect(await list({ label_selector: { app: 'y' } })).toEqual([second]);
    expect(await list({ id })).toEqual([id]);
    expect((await refusal(berthd.client.runtime('ContainerStats', { container_id: ended }))).kind).toBe(
      'precondition',
    );
  });
});
