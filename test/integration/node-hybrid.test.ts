import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LinuxContainerResources } from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { installBerth } from '../node/berth.ts';
import { leftovers } from '../node/leftovers.ts';
import { Node } from '../node/node.ts';
import { describeSelinux } from '../node/selinux.ts';
import { loadPolicy } from '../node/selinux-policy.ts';
import { IDLE, OWN_PID, Pods } from '../support/pods.ts';

/** See node-v2.test.ts. */
const BUILD_MS = 600_000;
const TEST_MS = 400_000;
const MIB = 1024 * 1024;
const SLICE = 'kubepods-besteffort-pod1a2b.slice';
const SLICE_PATH = `/kubepods.slice/kubepods-besteffort.slice/${SLICE}`;

/** Controller and file of each limit. */
const LIMITS = [
  ...['memory/memory.limit_in_bytes', 'cpu/cpu.shares', 'cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us'],
  ...['pids/pids.max', 'cpuset/cpuset.cpus', 'cpuset/cpuset.mems'],
];

let node: Node;
let pods: Pods;

beforeAll(async () => {
  // SELinux is tested here, so that it takes no boot of its own.
  const kernelArgs =
    'systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0 security=selinux';
  node = await Node.boot({ kernelArgs });
  await loadPolicy(node);
  pods = new Pods({ client: node.client, dir: '/var/log/pods', cgroupParent: SLICE });
  await installBerth(node);
  await node.sh(`systemctl start ${SLICE}`);
}, BUILD_MS);

afterAll(async () => {
  await node?.close();
});

async function limits(id: string): Promise<string[]> {
  const read = LIMITS.map((limit) => {
    const [controller, file] = limit.split('/');
    return `cat /sys/fs/cgroup/${controller}${SLICE_PATH}/berth-${id}.scope/${file}`;
  });
  return (await node.sh(read.join(' && '))).split('\n');
}

function command(args: string[], resources: LinuxContainerResources) {
  return { command: args, linux: { resources, security_context: OWN_PID } };
}

describeSelinux(() => ({ node, pods }), TEST_MS);

describe('the hybrid hierarchy with systemd', { timeout: TEST_MS }, () => {
  it('keeps limits on v1, also changed ones, when systemd reads its units again', async () => {
    expect((await node.client.runtime('RuntimeConfig', {})).linux?.cgroup_driver).toBe('SYSTEMD');
    const pod = await pods.run();
    const resources = {
      cpu_shares: '512',
      cpu_quota: '50000',
      cpu_period: '100000',
      memory_limit_in_bytes: `${64 * MIB}`,
      cpuset_cpus: '1',
      cpuset_mems: '0',
    };
    const id = await pods.start(pod, command(IDLE.command ?? [], resources));
    const created = [`${64 * MIB}`, '512', '50000', '100000', 'max', '1', '0'];
    expect(await limits(id)).toEqual(created);
    await node.sh('systemctl daemon-reload');
    expect(await limits(id)).toEqual(created);
    const linux = {
      cpu_shares: '2048',
      cpu_quota: '150000',
      cpu_period: '50000',
      memory_limit_in_bytes: `${128 * MIB}`,
      memory_swap_limit_in_bytes: `${128 * MIB}`,
      cpuset_cpus: '0-1',
    };
    await node.client.runtime('UpdateContainerResources', { container_id: id, linux });
    const changed = [`${128 * MIB}`, '2048', '150000', '50000', 'max', '0-1', '0'];
    expect(await limits(id)).toEqual(changed);
    await node.sh('systemctl daemon-reload');
    expect(await limits(id)).toEqual(changed);
    const { stats } = await node.client.runtime('ContainerStats', { container_id: id });
    expect(Number(stats?.memory?.working_set_bytes?.value)).toBeGreaterThan(0);
    await pods.removePod(pod);
  });

  it('tells a container that the OOM killer ended, and leaves nothing behind', async () => {
    const pod = await pods.run();
    const eat = ['dd', 'if=/dev/zero', 'of=/dev/null', 'bs=64M'];
    const id = await pods.start(pod, command(eat, { memory_limit_in_bytes: `${16 * MIB}` }));
    expect(await pods.ended(id)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    await pods.removePod(pod);
    expect(await leftovers(node)).toEqual([]);
  });
});
