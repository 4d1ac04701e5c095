import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { IDLE, OWN_PID, type Pod, type Pods, refusal } from '../support/pods.ts';
import type { Node } from './node.ts';

/** A profile of the node's own. */
const DENY_WRITES = `profile berth-test-deny-writes flags=(attach_disconnected) {
  file,
  signal,
  deny /** w,
}
`;
const LOADED = '/sys/kernel/security/apparmor/profiles';
const UNMASKED = { masked_paths: [], readonly_paths: [] };
/** Takes away what would refuse a mount before AppArmor is asked. */
const MAY_MOUNT: LinuxContainerSecurityContext = {
  capabilities: { add_capabilities: ['SYS_ADMIN'] },
  seccomp: { profile_type: 'Unconfined' },
};

/** Tests of AppArmor for a node that has it and on which berthd runs. */
export function describeAppArmor(machine: () => { node: Node; pods: Pods }, timeout: number): void {
  describe('AppArmor', { timeout }, () => {
    let node: Node;
    let pods: Pods;
    let pod: Pod;

    beforeAll(async () => {
      ({ node, pods } = machine());
      pod = await pods.run({ linux: { security_context: { privileged: true } } });
      await node.sh(`apparmor_parser --replace <<'END'\n${DENY_WRITES}END`);
    }, timeout);
    afterAll(async () => {
      await pods.removePod(pod);
    }, timeout);

    const secured = (more: LinuxContainerSecurityContext): ContainerConfig => ({
      ...IDLE,
      linux: { security_context: { ...OWN_PID, ...more } },
    });
    const named = (ref: string) => secured({ apparmor: { profile_type: 'Localhost', localhost_ref: ref } });
    const current = async (id: string) =>
      (await pods.ask(id, 'cat /proc/1/attr/current /proc/self/attr/current')).split('\n');
    const confined = (name: string) => Array(2).fill(`${name} (enforce)`);
    const said = async (id: string, script: string) => {
      const { code, stdout, stderr } = await pods.exec(id, ['sh', '-c', script], 60);
      return `${code} ${stdout}${stderr}`.trim();
    };

    it('confines containers that name no profile, which needs no more than the program that loads it', async () => {
      await node.run('apparmor_parser --remove <<<"profile berth-default {}"');
      expect(await node.sh(`cat ${LOADED}`)).not.toContain('berth-default');
      const id = await pods.start(pod, secured({ ...UNMASKED, ...MAY_MOUNT }));
      expect(await node.sh(`grep berth-default ${LOADED}`)).toBe('berth-default (enforce)');
      expect(await current(id)).toEqual(confined('berth-default'));
      // The other walls are gone: root of the node's user namespace, no masks, the capability and the syscall.
      expect(await said(id, 'echo core >/proc/sys/kernel/core_pattern')).toMatch(
        /^1 .*core_pattern: Permission denied$/,
      );
      expect(await said(id, 'cat /proc/sys/kernel/shmmni >/proc/sys/kernel/shmmni')).toBe('0');
      expect(await said(id, 'mkdir /m && mount -t tmpfs x /m')).toMatch(/^\d+ .*[Pp]ermission denied/);
      expect(await said(id, 'head -c 1 /proc/kcore')).toMatch(/^1 .*kcore: Permission denied$/);
      // What containers do all the time.
      expect(
        await said(
          id,
          'echo x >/tmp/f && chmod 600 /tmp/f && echo 0 >/proc/self/oom_score_adj && sleep 9 & sleep 0.1; kill $! && echo well',
        ),
      ).toBe('0 well');
      await pods.stop(id, 5);
    });

    it('is none for those that want none, and for privileged ones', async () => {
      for (const more of [
        { ...UNMASKED, ...MAY_MOUNT, apparmor: { profile_type: 'Unconfined' } },
        { privileged: true },
        { privileged: true, apparmor: { profile_type: 'RuntimeDefault' } },
      ] as const) {
        const id = await pods.start(pod, secured(more));
        expect(await current(id)).toEqual(['unconfined', 'unconfined']);
        expect(await said(id, 'mkdir -p /m && mount -t tmpfs x /m')).toBe('0');
        await pods.removeContainer(id);
      }
    });

    it('is what the pod names, in old and new spelling', async () => {
      const old = secured({ apparmor_profile: 'localhost/berth-test-deny-writes' });
      for (const more of [named('berth-test-deny-writes'), old]) {
        const id = await pods.start(pod, more);
        expect(await current(id)).toEqual(confined('berth-test-deny-writes'));
        expect(await said(id, 'touch /tmp/foo')).toMatch(/^1 .*foo: Permission denied$/);
        await pods.removeContainer(id);
      }
    });

    it('that is not loaded is refused by name', async () => {
      expect(await refusal(pods.create(pod, named('no-such-profile')))).toEqual({
        kind: 'invalid',
        message:
          'config.linux.security_context.apparmor.localhost_ref: the profile "no-such-profile" is not loaded on this node',
      });
    });
  });
}
