import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { SecurityProfile } from '../../proto/gen/runtime/v1/SecurityProfile.ts';
import { Berthd } from '../support/berthd.ts';
import { OWN_PID, type Pod, Pods, refusal } from '../support/pods.ts';

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

/**
 * System calls by their numbers on x86_64, with arguments that the kernel answers in another way than a filter
 * does, whatever the caller's capabilities: unknown file descriptors, null pointers, nothing to do.
 */
const CALLS = {
  getpid: '39',
  'unshare(0)': '272, 0',
  'setns(-1)': '308, -1, 0',
  'bpf(999)': '321, 999, 0, 0',
  'clone3(0)': '435, 0, 0',
  // Bind mounts need two paths; flags that exclude each other.
  'mount(0)': '165, 0, 0, 0, 0, 0',
  'clone(NEWNS|FS)': `56, ${0x2_0200}, 0, 0, 0, 0`,
  'clock_settime(99)': '227, 99, 0',
  'chroot(absent)': '161, $absent',
  'open_by_handle_at(-1)': '304, -1, 0, 0',
  'syslog(99)': '103, 99, 0, 0',
  'kcmp(0)': '312, 0, 0, 99, 0, 0',
  // A number that no kernel has: what programs make of ENOSYS is why profiles must not answer EPERM.
  'number 1000': '1000',
};
type Answers = Record<keyof typeof CALLS, string>;

/** What each call answers in a container: its errno's name, or "ok". */
async function answers(security_context: LinuxContainerSecurityContext): Promise<Answers> {
  const lines = Object.entries(CALLS).map(
    ([name, args]) =>
      `$! = 0; $r = syscall(${args}); print "${name}=", ($r < 0 ? (grep { $!{$_} } keys %!)[0] : "ok"), "\n";`,
  );
  const said = await pods.runToEnd(pod, {
    command: ['/usr/bin/perl', '-MErrno', '-e', ['$absent = "/absent";', ...lines].join(' ')],
    mounts: ['/usr', '/lib', '/lib64'].map((dir) => ({
      host_path: dir,
      container_path: dir,
      readonly: true,
    })),
    linux: { security_context: { ...OWN_PID, ...security_context } },
  });
  return Object.fromEntries(
    said.log
      .trim()
      .split('\n')
      .map((line) => line.split('=')),
  ) as Answers;
}
const seccomp = (
  profile_type: 'RuntimeDefault' | 'Unconfined' | 'Localhost',
  localhost_ref = '',
): SecurityProfile => ({
  profile_type,
  localhost_ref,
});
const add = (...add_capabilities: string[]) => ({ capabilities: { add_capabilities } });

/** The kernel's own answers. */
const FREE: Partial<Answers> = {
  getpid: 'ok',
  'unshare(0)': 'ok',
  'setns(-1)': 'EBADF',
  'clone3(0)': 'EINVAL',
  'clone(NEWNS|FS)': 'EINVAL',
  'clock_settime(99)': 'EINVAL',
  'chroot(absent)': 'ENOENT',
  'number 1000': 'ENOSYS',
};

describe.runIf(process.arch === 'x64')('what a filter lets through', () => {
  it('everything, with Unconfined', async () => {
    pod = await pods.run();
    expect(await answers({ seccomp: seccomp('Unconfined') })).toMatchObject(FREE);
    expect(await answers({})).toMatchObject(FREE);
  });

  it('RuntimeDefault: what programs need, and what belongs to a capability only with it', async () => {
    pod = await pods.run();
    const plain = await answers({ seccomp: seccomp('RuntimeDefault') });
    expect(plain).toMatchObject({
      getpid: 'ok',
      'unshare(0)': 'EPERM',
      'setns(-1)': 'EPERM',
      'bpf(999)': 'EPERM',
      // libc falls back to clone(2), whose flags a filter can see.
      'clone3(0)': 'ENOSYS',
      'mount(0)': 'EPERM',
      'clone(NEWNS|FS)': 'EPERM',
      'clock_settime(99)': 'EPERM',
      'open_by_handle_at(-1)': 'EPERM',
      'chroot(absent)': 'ENOENT',
      'number 1000': 'ENOSYS',
    });
    const admin = await answers({ seccomp: seccomp('RuntimeDefault'), ...add('SYS_ADMIN') });
    expect(admin).toMatchObject({
      ...FREE,
      'bpf(999)': 'EINVAL',
      'clock_settime(99)': 'EPERM',
      'mount(0)': 'EFAULT',
    });
    const time = await answers({ seccomp: seccomp('RuntimeDefault'), ...add('SYS_TIME') });
    expect(time).toMatchObject({ ...plain, 'clock_settime(99)': 'EINVAL' });
    const none = await answers({
      seccomp: seccomp('RuntimeDefault'),
      capabilities: { drop_capabilities: ['ALL'] },
    });
    expect(none).toMatchObject({ ...plain, 'chroot(absent)': 'EPERM' });
  });

  it('Localhost: what the profile says, also by argument and with an error of its own', async () => {
    pod = await pods.run();
    const profile = path.join(berthd.dir, 'profile.json');
    const rule = (names: string[], action: string, more = {}) => ({ names, action, ...more });
    await writeFile(
      profile,
      JSON.stringify({
        defaultAction: 'SCMP_ACT_ALLOW',
        architectures: ['SCMP_ARCH_X86_64'],
        syscalls: [
          rule(['unshare'], 'SCMP_ACT_ERRNO', { errnoRet: 28 }),
          rule(['setns'], 'SCMP_ACT_ERRNO', {
            args: [{ index: 1, value: 0, op: 'SCMP_CMP_EQ' }],
            errnoRet: 95,
          }),
          rule(['bpf'], 'SCMP_ACT_ERRNO', {
            args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }],
            errnoRet: 95,
          }),
        ],
      }),
    );
    const said = await answers({ seccomp: seccomp('Localhost', profile), ...add('SYS_ADMIN') });
    expect(said).toMatchObject({
      ...FREE,
      'unshare(0)': 'ENOSPC',
      'setns(-1)': expect.stringMatching(/^(EOPNOTSUPP|ENOTSUP)$/),
      'bpf(999)': 'EINVAL',
    });
  });

  it('a privileged container has none, whatever it asks for', async () => {
    pod = await pods.run({
      linux: { cgroup_parent: berthd.cgroupParent, security_context: { privileged: true } },
    });
    const said = await answers({ privileged: true, seccomp: seccomp('RuntimeDefault') });
    expect(said).toMatchObject({ ...FREE, 'bpf(999)': 'EINVAL' });
  });
});

describe('a sandbox’s own process', () => {
  const mode = async (profile: SecurityProfile) => {
    const made = await pods.run({
      linux: { cgroup_parent: berthd.cgroupParent, security_context: { seccomp: profile } },
    });
    const status = readFileSync(`/proc/${await pods.pid('pod', made.id)}/status`, 'utf8');
    return /^Seccomp:\s+(\d)/m.exec(status)?.[1];
  };

  it('is filtered as the pod asks', async () => {
    const profile = path.join(berthd.dir, 'allow.json');
    await writeFile(
      profile,
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ERRNO"}]}',
    );
    expect(await mode(seccomp('RuntimeDefault'))).toBe('2');
    expect(await mode(seccomp('Localhost', profile))).toBe('2');
    expect(await mode(seccomp('Unconfined'))).toBe('0');
  });
});

describe('a profile that cannot be used is refused, naming the field', () => {
  const FIELD = 'config.linux.security_context.seccomp.localhost_ref';

  it.each([
    ['absent', undefined, /no such file/i],
    ['not JSON', '{', /not JSON/],
    ['not a profile', '{"syscalls":[{"names":"all"}]}', /must be/],
    ['of an unknown action', '{"defaultAction":"ALLOW"}', /defaultAction must be an action/],
  ])('%s', async (name, text, message) => {
    const file = path.join(berthd.dir, `${name.replaceAll(' ', '-')}.json`);
    if (text !== undefined) await writeFile(file, text);
    pod = await pods.run();
    const security_context = { ...OWN_PID, seccomp: seccomp('Localhost', file) };
    const said = await refusal(pods.create(pod, { command: ['true'], linux: { security_context } }));
    expect(said).toMatchObject({ kind: 'invalid', message: expect.stringMatching(message) });
    expect(said.message).toContain(FIELD);
  });
});
