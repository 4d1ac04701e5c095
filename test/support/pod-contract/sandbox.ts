import { release } from 'node:os';
import { describe, expect, it } from 'vitest';
import { sharedDirectory } from '../host.ts';
import { IDLE, OWN_PID, refusal, SHARED_PID, sh, until } from '../pods.ts';
import type { Ability } from './handler.ts';
import { POD, type Suite } from './suite.ts';

/** A pod's identity, network, namespaces and files. */
export function describeSandbox(suite: Suite): void {
  describe('the sandbox', () => {
    it('is told as it was made, and has an address', async () => {
      const { berthd, pods, pod, handler } = suite;
      const said = await pods.podStatus(pod);
      const { hostname, dns_config, ...told } = POD;
      expect(said).toMatchObject({
        ...told,
        metadata: pod.config.metadata,
        state: 'SANDBOX_READY',
        runtime_handler: handler.name,
        linux: { namespaces: { options: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' } } },
      });
      expect(said.network?.ip).toMatch(/^10\.\d+\.\d+\.\d+$/);
      const { items } = await berthd.client.runtime('ListPodSandbox', { filter: { id: pod.id } });
      expect(items).toMatchObject([{ id: pod.id, ...told, created_at: said.created_at }]);
    });

    it('gives all its containers its name, hosts, DNS, kernel settings and network', async () => {
      const { pods, one, two, pod, handler } = suite;
      const ip = (await pods.podStatus(pod)).network?.ip ?? '';
      for (const id of [one, two]) {
        const all = await pods.ask(
          id,
          'hostname; cat /etc/hostname /etc/resolv.conf /etc/hosts /proc/sys/net/ipv4/ip_local_port_range; ' +
            'ip -o -4 addr show dev eth0',
        );
        for (const text of [
          'some-pod\nsome-pod\nsearch ns.svc.cluster.local\nnameserver 192.0.2.53\noptions ndots:5\n',
          '127.0.0.1\tlocalhost\n',
          `${ip}\tsome-pod\n`,
          '20000\t20999\n',
          `inet ${ip}/24 `,
        ])
          expect(all).toContain(text);
      }
      const kernel = await pods.ask(one, 'uname -r');
      expect(kernel === release()).toBe(!handler.hasOwnKernel);
    });

    it('shares network, names and memory among its containers, and neither mounts nor processes', async () => {
      const { pods, one, two } = suite;
      await pods.ask(one, 'echo shared > /dev/shm/file; echo own > /tmp/file; sleep 33333 >/dev/null 2>&1 &');
      const kinds = 'for n in net uts ipc pid mnt; do readlink /proc/self/ns/$n; done';
      const [first, second] = await Promise.all([one, two].map((id) => pods.ask(id, kinds)));
      const same = first?.split('\n').map((line, i) => line === second?.split('\n')[i]);
      expect(same).toEqual([true, true, true, false, false]);
      expect(await pods.ask(two, 'cat /dev/shm/file; ls /tmp/file 2>&1; ps -o args')).toMatch(
        /^shared\nls: .*No such file or directory\n(?!.*33333)/s,
      );
      expect(
        await pods.ask(two, "df -P /dev/shm | awk 'END{print $2}'; grep ' /dev/shm ' /proc/mounts"),
      ).toMatch(/^65536\n.*nosuid,nodev,noexec/);
    });

    it('reaches pods of another handler and is reached by them', async () => {
      const { pods, pod, one } = suite;
      const other = await pods.run({}, 'runc');
      const answer = (text: string) => sh(`exec nc -ll -p 8080 -e echo ${text}`);
      const [mine, theirs] = [
        await pods.start(pod, answer('mine')),
        await pods.start(other, answer('theirs')),
      ];
      const heard = async (from: string, to: typeof pod) => {
        const address = (await pods.podStatus(to)).network?.ip;
        return until(`an answer of ${address}`, () =>
          pods.ask(from, `nc -w 5 ${address} 8080 </dev/null`).catch(() => ''),
        );
      };
      expect([await heard(one, other), await heard(theirs, pod)]).toEqual(['theirs', 'mine']);
      await Promise.all([pods.removePod(other), pods.removeContainer(mine)]);
    });

    it('shares its processes too when it is asked to, and reaps them', async () => {
      const { pods } = suite;
      const pod = await suite.second();
      const shared = { linux: { security_context: SHARED_PID } };
      const one = await pods.start(pod, { ...IDLE, ...shared });
      const two = await pods.start(pod, sh('exec sleep 77777', shared));
      expect(await pods.ask(one, 'ps -o pid,args')).toMatch(/^ *\d+ +sleep 77777$/m);
      const orphan = await pods.ask(two, 'sleep 0.1 >/dev/null 2>&1 & echo $!');
      await until(
        'the orphan is reaped',
        async () => (await pods.exec(one, ['test', '-e', `/proc/${orphan}`])).code === 1,
      );
      await pods.stop(two);
      expect(await pods.status(two)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
      expect((await pods.status(one)).state).toBe('CONTAINER_RUNNING');
      // One of its own beside them.
      const own = await pods.start(pod, { ...IDLE, linux: { security_context: OWN_PID } });
      expect(await pods.ask(own, 'cat /proc/1/comm')).toBe('sleep');
    });

    it('lets a container join the processes of another one, to debug it', async () => {
      const { pods, pod, two } = suite;
      const namespace_options = { pid: 'TARGET' as const, target_id: two };
      const debug = await pods.start(pod, { ...IDLE, linux: { security_context: { namespace_options } } });
      expect(await pods.ask(debug, 'tr "\\0" "\\n" </proc/1/environ')).toContain('ANSWER=42');
      // The debugger's end leaves the target alone.
      await pods.stop(debug);
      expect((await pods.status(two)).state).toBe('CONTAINER_RUNNING');
      await pods.removeContainer(debug);
    });

    const refused = Object.entries(suite.handler.cannot) as [Ability, string][];
    if (refused.length === 0) return;
    it.each(refused)('is refused %s, with the reason', async (ability, reason) => {
      const { message } = await refusal(ASKING[ability](suite));
      expect(message).toContain(reason);
      const { items } = await suite.berthd.client.runtime('ListPodSandbox', {});
      expect(items.map(({ state }) => state)).not.toContain('SANDBOX_NOTREADY');
    });
  });
}

const withNamespaces = ({ pods, handler }: Suite, namespace_options: object) =>
  pods.run({ linux: { security_context: { namespace_options } } }, handler.name);

/** Calls that want what some handlers cannot. */
const ASKING: Record<Ability, (suite: Suite) => Promise<unknown>> = {
  "the node's network": (suite) => withNamespaces(suite, { network: 'NODE' }),
  "the node's PID namespace": (suite) => withNamespaces(suite, { pid: 'NODE' }),
  "the node's IPC namespace": (suite) => withNamespaces(suite, { ipc: 'NODE' }),
  'a user namespace': (suite) => {
    const [ids] = [{ host_id: 100_000, container_id: 0, length: 65_536 }];
    return withNamespaces(suite, {
      pid: 'CONTAINER',
      userns_options: { mode: 'POD', uids: [ids], gids: [ids] },
    });
  },
  "the node's devices": ({ pods, pod }) =>
    pods.create(pod, {
      ...IDLE,
      devices: [{ host_path: '/dev/null', container_path: '/dev/x', permissions: 'r' }],
    }),
  'bidirectional propagation': async (suite) => {
    const { dir, remove } = await sharedDirectory();
    const mounts = [
      { host_path: dir, container_path: '/m', propagation: 'PROPAGATION_BIDIRECTIONAL' as const },
    ];
    const linux = { security_context: { ...SHARED_PID, privileged: true } };
    return suite.pods.start(await suite.second(), { ...IDLE, mounts, linux }).finally(remove);
  },
  'recursive read-only mounts': ({ pods, pod, berthd }) =>
    pods.create(pod, {
      ...IDLE,
      mounts: [{ host_path: berthd.dir, container_path: '/m', readonly: true, recursive_read_only: true }],
    }),
};
