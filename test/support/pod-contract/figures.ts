import { describe, expect, it } from 'vitest';
import type { LinuxContainerResources } from '../../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { OWN_PID, refusal, sh, until } from '../pods.ts';
import type { Suite } from './suite.ts';

const number = (value: { value: string } | null | undefined) => Number(value?.value);
const LIMIT = 'cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes';
const GIVEN = { memory_limit_in_bytes: 64 << 20, cpu_quota: 50_000, cpu_period: 100_000, cpu_shares: 512 };

/** Statistics, metrics, limits and their change. */
export function describeFigures(suite: Suite): void {
  const stats = async (container_id: string) =>
    (await suite.berthd.client.runtime('ContainerStats', { container_id })).stats ?? undefined;

  describe('figures', () => {
    if (suite.handler.hasOwnKernel) {
      it('of a machine tell what it takes of the node, and for what', async () => {
        const { memory } = await suite.pods.info('pod', suite.pod.id);
        const { total, ...parts } = memory as Record<string, number>;
        expect(Object.values(parts).reduce((sum, part) => sum + part)).toBe(total);
        for (const part of ['guest', 'image', 'hypervisor', 'shim']) {
          expect(parts[part], part).toBeGreaterThan(4 << 20);
        }
        expect(parts.fileServer).toBeGreaterThan(1 << 18);
      });
    }

    it('of a container follow what it does, within limits that can be changed', async () => {
      const { pods, pod, berthd } = suite;
      const fill = 'dd if=/dev/urandom of=/file bs=1M count=3 2>/dev/null; touch /ready';
      const hold = `${fill}; dd if=/dev/zero bs=24M count=1 2>/dev/null | sleep 100000`;
      const linux = { resources: { ...GIVEN, oom_score_adj: 321 }, security_context: OWN_PID };
      const id = await pods.start(pod, sh(hold, { linux, labels: { app: 'x' } }));
      // What is on disk is not counted each time.
      await until('it has written', async () => (await pods.exec(id, ['test', '-e', '/ready'])).code === 0);
      const first = await until('memory is in use', async () => {
        const now = await stats(id);
        return number(now?.memory?.working_set_bytes) > 24 << 20 ? now : undefined;
      });
      expect(first.attributes).toMatchObject({ id, labels: { app: 'x' } });
      const working = number(first.memory?.working_set_bytes);
      expect(working).toBeLessThan(48 << 20);
      expect(number(first.memory?.usage_bytes)).toBeGreaterThanOrEqual(working);
      expect(number(first.memory?.available_bytes)).toBe((64 << 20) - working);
      expect(number(first.memory?.page_faults)).toBeGreaterThan(0);
      expect(number(first.writable_layer?.used_bytes)).toBeGreaterThanOrEqual(3 << 20);
      const busy = 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done';
      expect(await pods.ask(id, `${LIMIT}; cat /proc/1/oom_score_adj; ${busy}`)).toBe(`${64 << 20}\n321`);
      const later = await stats(id);
      expect(number(later?.cpu?.usage_core_nano_seconds)).toBeGreaterThan(
        number(first.cpu?.usage_core_nano_seconds) + 10_000_000,
      );
      const update = (change: LinuxContainerResources) =>
        berthd.client.runtime('UpdateContainerResources', { container_id: id, linux: change });
      await update({ memory_limit_in_bytes: 80 << 20, cpu_shares: 256 });
      expect(await pods.ask(id, LIMIT)).toBe(String(80 << 20));
      const text = (o: object) => Object.fromEntries(Object.entries(o).map(([k, v]) => [k, String(v)]));
      expect((await pods.status(id)).resources?.linux).toMatchObject(
        text({ ...GIVEN, memory_limit_in_bytes: 80 << 20, cpu_shares: 256 }),
      );
      await pods.stop(id);
      expect((await refusal(update({ cpu_shares: 4 }))).kind).toBe('precondition');
      expect((await refusal(stats(id))).kind).toBe('precondition');
    });

    it('of the pod tell of all in it, its network too', async () => {
      const { pods, pod, berthd, one, two } = suite;
      const ask = async () => {
        const { stats } = await berthd.client.runtime('PodSandboxStats', { pod_sandbox_id: pod.id });
        if (stats?.linux == null) throw new Error('no stats');
        return stats.linux;
      };
      const before = await ask();
      const gateway = await pods.ask(one, "ip route | awk '/default/ {print $3}'");
      await pods.ask(one, `ping -c 3 -s 1000 -i 0.2 -w 5 ${gateway} >/dev/null`);
      const after = await ask();
      expect(after.network?.default_interface?.name).toBe('eth0');
      for (const way of ['rx_bytes', 'tx_bytes'] as const)
        expect(number(after.network?.default_interface?.[way])).toBeGreaterThan(
          number(before.network?.default_interface?.[way]) + 3000,
        );
      expect(number(after.cpu?.usage_core_nano_seconds)).toBeGreaterThan(
        number(before.cpu?.usage_core_nano_seconds),
      );
      expect(number(after.memory?.working_set_bytes)).toBeGreaterThan(0);
      expect(number(after.process?.process_count)).toBeGreaterThanOrEqual(2);
      expect(after.containers.map(({ attributes }) => attributes?.id)).toEqual(
        expect.arrayContaining([one, two]),
      );
    });

    it('are all that the kubelet has descriptors of', async () => {
      const { pod, berthd, one } = suite;
      const { descriptors } = await berthd.client.runtime('ListMetricDescriptors', {});
      const known = new Map(descriptors.map(({ name, label_keys }) => [name, label_keys.length]));
      const { pod_metrics } = await berthd.client.runtime('ListPodSandboxMetrics', {});
      const mine = pod_metrics.find(({ pod_sandbox_id }) => pod_sandbox_id === pod.id);
      const ofOne = mine?.container_metrics.find(({ container_id }) => container_id === one)?.metrics ?? [];
      for (const metric of [...ofOne, ...(mine?.metrics ?? [])])
        expect(known.get(metric.name), metric.name).toBe(metric.label_values.length);
      expect(ofOne.map(({ name }) => name)).toEqual(
        expect.arrayContaining([
          'container_cpu_usage_seconds_total',
          'container_memory_usage_bytes',
          'container_memory_working_set_bytes',
          'container_fs_usage_bytes',
          'container_start_time_seconds',
          'container_last_seen',
          'container_oom_events_total',
        ]),
      );
      expect(mine?.metrics.map(({ name }) => name)).toContain('container_network_receive_bytes_total');
    });
  });
}
