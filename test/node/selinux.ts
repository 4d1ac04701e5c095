import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { IDLE, OWN_PID, type Pod, type Pods, refusal } from '../support/pods.ts';
import type { Node } from './node.ts';

const PROCESS = /^system_u:system_r:container_t:(s0:c\d+,c\d+)$/;

/** Tests of SELinux for a node with the policy of selinux-policy.ts on which berthd runs. */
export function describeSelinux(machine: () => { node: Node; pods: Pods }, timeout: number): void {
  describe('SELinux', { timeout }, () => {
    let node: Node;
    let pods: Pods;
    let pod: Pod;
    let other: Pod;
    let id: string;
    /** The pod's. */
    let level: string;

    beforeAll(async () => {
      ({ node, pods } = machine());
      pod = await pods.run({ linux: { security_context: { privileged: true } } });
      other = await pods.run();
      id = await pods.start(pod, volume('/srv/own', true));
      level = PROCESS.exec(await current(id))?.[1] ?? '';
    }, timeout);
    afterAll(async () => {
      for (const made of [pod, other]) await pods.removePod(made);
      await node.sh('echo 0 >/sys/fs/selinux/enforce; rm -rf /srv/own /srv/plain');
    }, timeout);

    const secured = (more: LinuxContainerSecurityContext): ContainerConfig => ({
      ...IDLE,
      linux: { security_context: { ...OWN_PID, ...more } },
    });
    const volume = (host_path: string, selinux_relabel: boolean): ContainerConfig => ({
      ...IDLE,
      mounts: [{ host_path, container_path: '/volume', selinux_relabel }],
    });
    const current = async (container: string) =>
      (await pods.ask(container, 'cat /proc/1/attr/current')).replace(/\0/g, '');
    const labels = (paths: string[]) =>
      node.sh(`stat -c %C ${paths.join(' ')}`).then((text) => text.split('\n'));
    const files = () => `system_u:object_r:container_file_t:${level}`;

    it('labels a pod’s processes and files with a level of the pod’s own', async () => {
      expect(level).not.toBe('');
      const [same, foreign] = [await pods.start(pod), await pods.start(other)];
      expect(await current(same)).toBe(await current(id));
      expect(await current(foreign)).toMatch(PROCESS);
      expect(await current(foreign)).not.toBe(await current(id));
      // What is run in it later, too.
      expect(await pods.ask(id, 'cat /proc/self/attr/current')).toContain(level);
      const root = `/proc/${await pods.pid('container', id)}/root`;
      const paths = ['', 'bin', 'dev', 'dev/shm', 'etc/hosts', 'etc/hostname', 'etc/resolv.conf', 'volume'];
      expect(await labels(paths.map((path) => `${root}/${path}`))).toEqual(paths.map(files));
      await node.sh('echo 1 >/sys/fs/selinux/enforce');
      const write = async (container: string, config = '') =>
        (await pods.exec(container, ['sh', '-c', `${config}echo x >/volume/file`], 60)).stderr.trim();
      expect(
        await pods.ask(id, 'echo x >/tmp/f; echo x >/dev/shm/f; echo 1.1.1.1 x >>/etc/hosts; cat /tmp/f'),
      ).toBe('x');
      expect(await write(id)).toBe('');
      // The same volume, unasked, in a container of another pod, and one that is nobody's.
      for (const path of ['/srv/own', '/srv/plain']) {
        const intruder = await pods.start(other, volume(path, false));
        expect(await write(intruder)).toMatch(/Permission denied$/);
        await pods.removeContainer(intruder);
      }
      await node.sh('echo 0 >/sys/fs/selinux/enforce');
      for (const container of [same, foreign]) await pods.removeContainer(container);
    });

    it('leaves alone what has the right label at its top, and refuses the node’s directories', async () => {
      await node.sh(
        'mkdir /srv/own/sub && chcon system_u:object_r:node_file_t:s0 /srv/own/sub && ln -s /etc /srv/own/link',
      );
      await pods.removeContainer(await pods.start(pod, volume('/srv/own', true)));
      expect(await labels(['/srv/own/sub'])).toEqual(['system_u:object_r:node_file_t:s0']);
      await node.sh('chcon system_u:object_r:node_file_t:s0 /srv/own');
      await pods.removeContainer(await pods.start(pod, volume('/srv/own', true)));
      expect(await labels(['/srv/own', '/srv/own/sub', '/srv/own/link'])).toEqual([
        files(),
        files(),
        files(),
      ]);
      expect(await labels(['/etc/passwd'])).toEqual(['system_u:object_r:node_file_t:s0']);
      expect(await refusal(pods.create(pod, volume('/srv/own/link', true)))).toEqual({
        kind: 'invalid',
        message: 'config.mounts[0].selinux_relabel: /etc is the node’s and keeps its label'.replace('’', "'"),
      });
    });

    it('gives what is asked for, and refuses what the policy does not have', async () => {
      const asked = secured({ selinux_options: { type: 'spc_t', level: 's0:c7,c9' } });
      const free = await pods.start(pod, asked);
      expect(await current(free)).toBe('system_u:system_r:spc_t:s0:c7,c9');
      const privileged = await pods.start(pod, secured({ privileged: true }));
      expect(await current(privileged)).toBe('system_u:system_r:node_t:s0-s0:c0.c1023');
      for (const container of [free, privileged]) await pods.removeContainer(container);
      expect(await refusal(pods.create(pod, secured({ selinux_options: { type: 'nosuch_t' } })))).toEqual({
        kind: 'invalid',
        message: `config.linux.security_context.selinux_options: the node's SELinux policy does not allow the label system_u:system_r:nosuch_t:${level}`,
      });
    });
  });
}
