import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { OWN_PID, SHARED_PID, sh } from '../pods.ts';
import { FULL_IMAGE, type Suite } from './suite.ts';

const image = { image: { image: FULL_IMAGE } };
const secure = (more: LinuxContainerSecurityContext) => ({
  linux: { security_context: { ...OWN_PID, ...more } },
});
const STATUS = (key: string) => `awk '/^${key}:/{print $2}' /proc/self/status`;

/** What a container's process is started with, and what it may do. */
export function describeProcess(suite: Suite): void {
  describe('the process', () => {
    it('is command, arguments, environment, directory and user of request and image', async () => {
      const { pods, pod } = suite;
      const cases: [ContainerConfig, string][] = [
        [
          sh('echo $FROM $BOTH; pwd; id -un; echo $HOME; cat; test -t 0 || echo none'),
          'image image\n/tmp\napp\n/tmp\nnone\n',
        ],
        [
          sh('echo $FROM $BOTH "$NEW"; pwd; id -un; echo $HOME', {
            envs: [
              { key: 'BOTH', value: Buffer.from('request') },
              { key: 'NEW', value: Buffer.from('a=b  c\nü') },
            ],
            working_dir: '/made/for/it',
            ...secure({ run_as_user: { value: 0 } }),
          }),
          'image request a=b  c\nü\n/made/for/it\nroot\n/root\n',
        ],
      ];
      for (const [config, log] of cases)
        expect(await pods.runToEnd(pod, { ...image, ...config })).toMatchObject({ exit_code: 0, log });
    });

    it('has the user, group and groups that names and numbers mean, and the status tells', async () => {
      const { pods, pod } = suite;
      const cases: [LinuxContainerSecurityContext, number, number, number[]][] = [
        [
          { run_as_user: { value: 1000 }, run_as_group: { value: 5 }, supplemental_groups: [7] },
          1000,
          5,
          [5, 7, 2000],
        ],
        [
          { run_as_username: 'app', supplemental_groups: [7], supplemental_groups_policy: 'Strict' },
          1000,
          1001,
          [7, 1001],
        ],
      ];
      for (const [context, uid, gid, groups] of cases) {
        const said = await pods.runToEnd(
          pod,
          sh(
            'id -u; id -g; id -G | tr " " "\\n" | sort -nu | tr "\\n" " "; stat -c %u:%g $(mktemp -p /dev/shm)',
            secure(context),
          ),
        );
        expect(said.log, JSON.stringify(context)).toBe(`${uid}\n${gid}\n${groups.join(' ')} ${uid}:${gid}\n`);
        const told = said.user?.linux;
        expect([told?.uid, told?.gid]).toEqual([String(uid), String(gid)]);
        expect(told?.supplemental_groups.map(Number).sort((a, b) => a - b)).toEqual(groups);
      }
    });

    it('has the usual capabilities, less what is dropped, with what is added', async () => {
      const { pods, one } = suite;
      const [CHOWN, NET_BIND, NET_ADMIN] = [1n << 0n, 1n << 10n, 1n << 12n];
      const usual = BigInt(`0x${await pods.ask(one, STATUS('CapEff'))}`);
      expect([usual & CHOWN, usual & NET_BIND, usual & NET_ADMIN]).toEqual([CHOWN, NET_BIND, 0n]);
      const capabilities = { drop_capabilities: ['CHOWN'], add_capabilities: ['NET_ADMIN'] };
      const said = await suite.prints(STATUS('CapEff'), secure({ capabilities }));
      expect(BigInt(`0x${said}`)).toBe((usual | NET_ADMIN) & ~CHOWN);
    });

    it('is held to a read-only root, masked and read-only paths, no new privileges and seccomp', async () => {
      const script =
        'for d in / /tmp /etc /dev/shm; do touch $d/x 2>/dev/null && echo $d; done; echo x >/etc/hosts; ' +
        'wc -c </proc/timer_list; echo 1 >/proc/sys/kernel/printk; unshare -n true; ' +
        `${STATUS('NoNewPrivs')}; ${STATUS('Seccomp')}`;
      const hardened = secure({
        readonly_rootfs: true,
        no_new_privs: true,
        masked_paths: ['/proc/timer_list', '/no/such'],
        readonly_paths: ['/proc/sys'],
        seccomp: { profile_type: 'RuntimeDefault' },
      });
      expect(await suite.prints(script, hardened)).toMatch(
        /^\/dev\/shm\n.*hosts: Read-only file system\n0\n.*printk: Read-only file system\nunshare: .*not permitted\n1\n2$/,
      );
    });

    it('is filtered by a seccomp profile of the node', async () => {
      const profile = path.join(suite.berthd.dir, 'profile.json');
      const syscalls = [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 }];
      await writeFile(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls }));
      const filtered = secure({ seccomp: { profile_type: 'Localhost', localhost_ref: profile } });
      expect(await suite.prints('mkdir /made; touch /made && echo touched', filtered)).toMatch(
        /^mkdir: .*not permitted\ntouched$/,
      );
    });

    it('may do everything when it is privileged', async () => {
      const script = `mount -t tmpfs t /tmp && echo mounted; ${STATUS('Seccomp')}; wc -c </proc/timer_list`;
      const security_context = { ...SHARED_PID, privileged: true, masked_paths: ['/proc/timer_list'] };
      const said = await suite.prints(script, { linux: { security_context } }, await suite.second());
      expect(said).toMatch(/^mounted\n0\n[1-9]\d*$/);
    });
  });
}
