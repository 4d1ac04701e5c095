import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IDLE, OWN_PID, type Pod, type Pods } from '../support/pods.ts';
import type { Node } from './node.ts';

const MIB = 1024 * 1024;
const HUGE = 2 * MIB;
/** The node's programs with what they need. */
const PROGRAMS = ['/usr', '/lib', '/lib64'].map((at) => ({
  host_path: at,
  container_path: at,
  readonly: true,
}));

/** For the node's config.toml: a handler whose containers see their share of the machine. */
export const VIEW_CONFIG = `
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.view]
path = "/usr/sbin/runc"
resource_view = true
[resource_view]
lxcfs = "/usr/bin/lxcfs"
`;

/** Tests of what separates containers from a node with cgroup v2, on which berthd runs with {@link VIEW_CONFIG}. */
export function describeIsolation(machine: () => { node: Node; pods: Pods }, timeout: number): void {
  describe('isolation on cgroup v2', { timeout }, () => {
    let node: Node;
    let pods: Pods;
    let pod: Pod;

    beforeAll(async () => {
      ({ node, pods } = machine());
      pod = await pods.run();
    }, timeout);
    afterAll(async () => {
      await pods.removePod(pod);
    }, timeout);

    it('lets containers use the devices that they ask for, by eBPF, and no others', async () => {
      const device = { host_path: '/dev/vda', container_path: '/dev/disk0', permissions: 'r' };
      const id = await pods.start(pod, { ...IDLE, devices: [device] });
      const use = async () =>
        await pods.exec(
          id,
          ['sh', '-c', 'head -c 0 /dev/disk0 && echo read; true >/dev/disk0; head -c 0 /tmp/mem'],
          60,
        );
      await pods.ask(id, 'mknod /tmp/mem c 1 1');
      const expected = {
        stdout: 'read\n',
        stderr: expect.stringMatching(/disk0: Operation not permitted\n.*mem: Operation not permitted/),
      };
      expect(await use()).toMatchObject(expected);
      // systemd knows nothing of these rules; nor may it undo them.
      const update = { container_id: id, linux: { cpu_shares: '512' } };
      await node.client.runtime('UpdateContainerResources', update);
      await node.sh('systemctl daemon-reload');
      expect(await use()).toMatchObject(expected);
      await pods.removeContainer(id);
    });

    it('lets containers have as many huge pages as they ask for', async () => {
      await node.sh(
        'echo 4 >/proc/sys/vm/nr_hugepages; mkdir -p /srv/huge; mount -t hugetlbfs -o pagesize=2M none /srv/huge',
      );
      expect(await node.sh('cat /proc/sys/vm/nr_hugepages')).toBe('4');
      const id = await pods.start(pod, {
        ...IDLE,
        mounts: [{ host_path: '/srv/huge', container_path: '/huge' }],
        linux: {
          security_context: OWN_PID,
          resources: { hugepage_limits: [{ page_size: '2MB', limit: `${2 * HUGE}` }] },
        },
      });
      const take = (pages: number) =>
        pods.exec(
          id,
          ['sh', '-c', `fallocate -l ${pages * HUGE} /huge/file; code=$?; rm -f /huge/file; exit $code`],
          60,
        );
      expect(await take(2)).toMatchObject({ code: 0 });
      expect(await take(3)).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('No space left on device'),
      });
      await pods.removeContainer(id);
      await node.sh('umount /srv/huge; echo 0 >/proc/sys/vm/nr_hugepages');
    });

    it('passes mounts on as their propagation says', async () => {
      await node.sh(
        'mkdir -p /srv/prop && mount -t tmpfs none /srv/prop && mount --make-shared /srv/prop && mkdir /srv/prop/in /srv/prop/out',
      );
      const mounted = (
        propagation: 'PROPAGATION_BIDIRECTIONAL' | 'PROPAGATION_HOST_TO_CONTAINER' | 'PROPAGATION_PRIVATE',
      ) => ({
        ...IDLE,
        mounts: [{ host_path: '/srv/prop', container_path: '/prop', propagation }],
      });
      const admin = await pods.run({ linux: { security_context: { privileged: true } } });
      const both = await pods.start(admin, {
        ...mounted('PROPAGATION_BIDIRECTIONAL'),
        linux: { security_context: { ...OWN_PID, privileged: true } },
      });
      const taking = await pods.start(pod, mounted('PROPAGATION_HOST_TO_CONTAINER'));
      const none = await pods.start(pod, mounted('PROPAGATION_PRIVATE'));
      await pods.ask(both, 'mount -t tmpfs none /prop/out && touch /prop/out/file');
      await node.sh('mount -t tmpfs none /srv/prop/in && touch /srv/prop/in/file && ls /srv/prop/out/file');
      const sees = async (id: string) => await pods.ask(id, 'ls /prop/in /prop/out | grep -c file || true');
      expect([await sees(both), await sees(taking), await sees(none)]).toEqual(['2', '2', '0']);
      for (const id of [taking, none]) await pods.removeContainer(id);
      await pods.removePod(admin);
      await node.sh('umount /srv/prop/in /srv/prop/out /srv/prop');
    });

    it('shows containers their share of the machine, also a changed one', async () => {
      const view = await pods.run({}, 'view');
      const id = await pods.start(view, {
        ...IDLE,
        mounts: PROGRAMS,
        linux: {
          security_context: OWN_PID,
          resources: { memory_limit_in_bytes: `${96 * MIB}`, cpu_quota: '100000', cpu_period: '100000' },
        },
      });
      const look = () =>
        pods.ask(
          id,
          "/usr/bin/free -m | awk '/^Mem/{print $2}'; /usr/bin/getconf _NPROCESSORS_ONLN; grep -c ^processor /proc/cpuinfo",
        );
      expect(await look()).toBe('96\n1\n1');
      const linux = { memory_limit_in_bytes: `${160 * MIB}`, cpu_quota: '200000', cpu_period: '100000' };
      await node.client.runtime('UpdateContainerResources', { container_id: id, linux });
      expect(await look()).toBe('160\n2\n2');
      await pods.removePod(view);
    });
  });
}
