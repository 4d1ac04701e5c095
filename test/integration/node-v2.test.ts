import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sharesToWeight } from '../../cgroups/index.ts';
import type { LinuxContainerResources } from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import { installBerth, journal } from '../node/berth.ts';
import { Node } from '../node/node.ts';
import { IDLE, OWN_PID, Pods } from '../support/pods.ts';

/** The image is built with the first run; after that a boot takes about 15 s. */
const BUILD_MS = 400_000;
const MIB = 1024 * 1024;
const POD_UID = '0d4c9f6e_5f0a_4f4e_9d0c_3f1f6a1c2b3d';
/** As the kubelet names a burstable pod's slice under the systemd driver. */
const SLICE = `kubepods-burstable-pod${POD_UID}.slice`;
const SLICE_PATH = `/kubepods.slice/kubepods-burstable.slice/${SLICE}`;

let node: Node;
let pods: Pods;

beforeAll(async () => {
  node = await Node.boot();
  pods = new Pods({ client: node.client, dir: '/var/log/pods', cgroupParent: SLICE });
  await installBerth(node, { dropIn: '[Service]\nWatchdogSec=12s\n' });
}, BUILD_MS);

afterAll(async () => {
  await node?.close();
});

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') console.error(await journal(node).catch(String));
});

/** Files of a container's cgroup. */
async function files(id: string, names: string[]): Promise<Record<string, string>> {
  const dir = `/sys/fs/cgroup${SLICE_PATH}/berth-${id}.scope`;
  const text = await node.sh(`cd ${dir} && for f in ${names.join(' ')}; do echo "$f=$(cat $f)"; done`);
  return Object.fromEntries(text.split('\n').map((line) => line.split('=') as [string, string]));
}

const LIMITS = [
  'memory.max',
  'memory.swap.max',
  'memory.oom.group',
  'cpu.max',
  'cpu.weight',
  'pids.max',
  'cpuset.cpus',
  'cpuset.mems',
];

function withLimits(resources: LinuxContainerResources) {
  return { ...IDLE, linux: { resources, security_context: OWN_PID } };
}

const RESOURCES: LinuxContainerResources = {
  cpu_shares: '512',
  cpu_quota: '50000',
  cpu_period: '100000',
  memory_limit_in_bytes: `${64 * MIB}`,
  cpuset_cpus: '1',
  cpuset_mems: '0',
  hugepage_limits: [{ page_size: '2MB', limit: '0' }],
  unified: { 'memory.oom.group': '1' },
};

describe('cgroup v2 with systemd', () => {
  it("is found by itself, and the kubelet is told to use systemd's driver", async () => {
    expect(await node.sh('stat -fc %T /sys/fs/cgroup')).toBe('cgroup2fs');
    const config = await node.client.runtime('RuntimeConfig', {});
    expect(config.linux?.cgroup_driver).toBe('SYSTEMD');
  });

  it("puts containers into scopes of the kubelet's slice, and their limits into the v2 files", async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, withLimits(RESOURCES));
    expect(await files(id, LIMITS)).toEqual({
      'memory.max': `${64 * MIB}`,
      'memory.swap.max': '0',
      'memory.oom.group': '1',
      'cpu.max': '50000 100000',
      'cpu.weight': `${sharesToWeight(512n)}`,
      'pids.max': 'max',
      'cpuset.cpus': '1',
      'cpuset.mems': '0',
    });
    for (const [kind, of] of [
      ['pod', pod.id],
      ['container', id],
    ] as const) {
      const cgroup = await node.sh(`cat /proc/${await pods.pid(kind, of)}/cgroup`);
      expect(cgroup).toBe(`0::${SLICE_PATH}/berth-${of}.scope`);
    }
    await pods.removePod(pod);
  });
});
