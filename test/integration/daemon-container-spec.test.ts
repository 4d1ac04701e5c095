import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import { IDLE, importArchive, OWN_PID, type Pod, Pods, sh } from '../support/pods.ts';

const run = promisify(execFile);
const FULL = 'localhost/berth-test/full:1';
let berthd: Berthd;
let pods: Pods;
let pod: Pod;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  const config = {
    Entrypoint: ['/bin/echo', 'entry'],
    Env: ['PATH=/bin', 'FROM=image', 'BOTH=image'],
    WorkingDir: '/tmp',
    User: 'app',
  };
  await importArchive(berthd, await busyboxArchive(FULL, ['cmd'], config));
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const secure = (more: LinuxContainerSecurityContext) => ({
  linux: { security_context: { ...OWN_PID, ...more } },
});
/** What a script in a container of its own prints, errors too: two streams would come in any order. */
const prints = async (script: string, more: ContainerConfig = {}) =>
  (await pods.runToEnd(pod, sh(`exec 2>&1; ${script}`, more))).log.trim();
const newPod = async () => (pod = await pods.run());
const privilegedPod = async () =>
  (pod = await pods.run({
    linux: { cgroup_parent: berthd.cgroupParent, security_context: { privileged: true } },
  }));

describe('the process', () => {
  it('is command and arguments of request and image by Kubernetes’ rules', async () => {
    await newPod();
    const image = { image: { image: FULL } };
    const cases: [ContainerConfig, string][] = [
      [{}, 'entry cmd\n'],
      [{ args: ['x', 'y z'] }, 'entry x y z\n'],
      [{ command: ['echo', 'c'] }, 'c\n'],
      [{ command: ['echo', 'c'], args: ['$(a)', ''] }, 'c $(a) \n'],
    ];
    for (const [config, log] of cases)
      expect(await pods.runToEnd(pod, { ...image, ...config })).toMatchObject({ exit_code: 0, log });
  });

  it('has the image’s environment, directory and user unless the request has its own', async () => {
    await newPod();
    const image = { image: { image: FULL } };
    const script = 'echo $FROM $BOTH $NEW; pwd; id -un; echo $HOME';
    expect(await prints(script, image)).toBe('image image\n/tmp\napp\n/tmp');
    const envs = [
      { key: 'BOTH', value: Buffer.from('request') },
      { key: 'NEW', value: Buffer.from('a=b c\nü') },
    ];
    const own = { ...image, envs, working_dir: '/made/for/it', ...secure({ run_as_user: { value: 0 } }) };
    expect(await prints(script, own)).toBe('image request a=b c ü\n/made/for/it\nroot\n/root');
    // A directory of the request that is not there is made.
    expect(await prints('env | cut -d= -f1 | sort | tr "\\n" " "', image)).toBe(
      'BOTH FROM HOME HOSTNAME PATH PWD SHLVL',
    );
  });

  it('runs as the user, group and groups that names and numbers mean, and the status tells', async () => {
    await newPod();
    const groups = { supplemental_groups: [7, 2000] };
    const cases: [LinuxContainerSecurityContext, number, number, number[]][] = [
      [{}, 0, 0, [0]],
      [{ run_as_user: { value: 1000 } }, 1000, 1001, [1001, 2000]],
      [{ run_as_username: 'app' }, 1000, 1001, [1001, 2000]],
      [{ run_as_user: { value: 4242 } }, 4242, 0, [0]],
      [{ run_as_user: { value: 1000 }, run_as_group: { value: 5 } }, 1000, 5, [5, 2000]],
      [{ run_as_user: { value: 1000 }, ...groups }, 1000, 1001, [7, 1001, 2000]],
      [
        { run_as_username: 'app', ...groups, supplemental_groups: [7], supplemental_groups_policy: 'Strict' },
        1000,
        1001,
        [7, 1001],
      ],
    ];
    for (const [context, uid, gid, all] of cases) {
      const said = await pods.runToEnd(
        pod,
        sh('id -u; id -g; id -G; stat -c %u:%g $(mktemp -p /dev/shm)', secure(context)),
      );
      const [u, g, list, owner] = said.log.split('\n');
      const numbers = (list ?? '').split(' ').map(Number);
      const sorted = [...new Set(numbers)].sort((a, b) => a - b);
      expect([Number(u), Number(g), sorted, owner], JSON.stringify(context)).toEqual([
        uid,
        gid,
        all,
        `${uid}:${gid}`,
      ]);
      const told = said.user?.linux;
      expect([told?.uid, told?.gid]).toEqual([String(uid), String(gid)]);
      expect(told?.supplemental_groups.map(Number).sort((a, b) => a - b)).toEqual(all);
    }
  });

  it('has the terminal that it asks for, and no input otherwise', async () => {
    await newPod();
    expect(await prints('test -t 0 || echo none; cat; echo end; stty size 2>&1 | head -c 5')).toMatch(
      /^none\nend\nstty:/,
    );
    expect(await prints('test -t 0 && test -c /dev/console && tty', { tty: true })).toMatch(
      /^\/dev\/(pts\/0|console)$/,
    );
  });
});

describe('mounts', () => {
  const dir = (name: string) => path.join(berthd.dir, 'volumes', name);

  it('are what was asked for, read-only or not, made when absent, and echoed in the status', async () => {
    await newPod();
    await mkdir(dir('rw'), { recursive: true });
    await writeFile(dir('file'), 'of the host');
    const mounts = [
      { host_path: dir('rw'), container_path: '/deep/below/rw' },
      { host_path: dir('absent/made'), container_path: '/deep', readonly: true },
      { host_path: dir('file'), container_path: '/dev/termination-log' },
      { host_path: dir('rw'), container_path: '/etc/hosts.d', readonly: true, selinux_relabel: true },
    ];
    await mkdir(dir('absent/made/below/rw'), { recursive: true });
    const id = await pods.start(pod, { ...IDLE, mounts });
    expect(
      await pods.ask(
        id,
        'echo new > /deep/below/rw/x; cat /dev/termination-log; echo why > /dev/termination-log',
      ),
    ).toBe('of the host');
    expect(await readFile(dir('rw/x'), 'utf8')).toBe('new\n');
    expect(await readFile(dir('file'), 'utf8')).toBe('why\n');
    for (const file of ['/deep/x', '/etc/hosts.d/x'])
      expect((await pods.exec(id, ['touch', file])).stderr).toContain('Read-only file system');
    const echoed = (await pods.status(id)).mounts;
    expect(
      echoed.map(({ host_path, container_path, readonly, selinux_relabel, propagation }) => ({
        host_path,
        container_path,
        readonly,
        selinux_relabel,
        propagation,
      })),
    ).toEqual(
      mounts.map((m) => ({
        readonly: false,
        selinux_relabel: false,
        propagation: 'PROPAGATION_PRIVATE',
        ...m,
      })),
    );
    const made = await pods.start(pod, {
      ...IDLE,
      mounts: [{ host_path: dir('not/there/yet'), container_path: '/m' }],
    });
    await pods.ask(made, 'touch /m/x');
    expect(existsSync(dir('not/there/yet/x'))).toBe(true);
  });

  it('pass mounts on as their propagation says', async () => {
    await privilegedPod();
    // A mount of the test's own, outside the daemon's directory, shared with whoever binds it.
    const base = `/tmp/berth-prop-${berthd.tag}`;
    await mkdir(base);
    await run('mount', ['-t', 'tmpfs', 'tmpfs', base]);
    try {
      await run('mount', ['--make-shared', base]);
      for (const name of ['host', 'inside']) await mkdir(path.join(base, name));
      const mounts = (propagation: string) => [
        { host_path: base, container_path: '/m', propagation: `PROPAGATION_${propagation}` as never },
      ];
      const idle = (propagation: string) =>
        pods.start(pod, { ...IDLE, mounts: mounts(propagation), ...secure({ privileged: true }) });
      const [none, slave, shared] = [
        await idle('PRIVATE'),
        await idle('HOST_TO_CONTAINER'),
        await idle('BIDIRECTIONAL'),
      ];
      await run('mount', ['-t', 'tmpfs', 'tmpfs', path.join(base, 'host')]);
      await writeFile(path.join(base, 'host/seen'), '');
      const seen = async (id: string) => (await pods.exec(id, ['test', '-e', '/m/host/seen'])).code === 0;
      expect([await seen(none), await seen(slave), await seen(shared)]).toEqual([false, true, true]);
      await pods.ask(slave, 'mount -t tmpfs tmpfs /m/inside; touch /m/inside/slave');
      expect(existsSync(path.join(base, 'inside/slave'))).toBe(false);
      await pods.ask(shared, 'mount -t tmpfs tmpfs /m/inside; touch /m/inside/shared');
      expect(existsSync(path.join(base, 'inside/shared'))).toBe(true);
    } finally {
      await berthd.removeAllPods();
      await run('umount', ['-R', base]);
      await rm(base, { recursive: true });
    }
  });

  it('read-only with all below, when that is asked for', async () => {
    await newPod();
    const base = `/tmp/berth-rro-${berthd.tag}`;
    await mkdir(path.join(base, 'sub'), { recursive: true });
    await run('mount', ['-t', 'tmpfs', 'tmpfs', path.join(base, 'sub')]);
    try {
      const write = (more: object) =>
        prints('touch /m/sub/x && echo written || true', {
          mounts: [{ host_path: base, container_path: '/m', readonly: true, ...more }],
        });
      expect(await write({})).toBe('written');
      expect(await write({ recursive_read_only: true })).toContain('Read-only file system');
    } finally {
      await berthd.removeAllPods();
      await run('umount', [path.join(base, 'sub')]);
      await rm(base, { recursive: true });
    }
  });

  it('a read-only root lets nothing be written but its volumes and /dev/shm', async () => {
    await newPod();
    const script =
      'for d in / /tmp /etc /dev/shm /v; do touch $d/x 2>/dev/null && echo $d; done; echo x >/etc/hosts';
    const mounts = [{ host_path: dir('v'), container_path: '/v' }];
    expect(await prints(script, { mounts, ...secure({ readonly_rootfs: true }) })).toMatch(
      /^\/dev\/shm\n\/v\n.*\/etc\/hosts: Read-only file system$/,
    );
    expect(await prints('touch /x && echo ok', {})).toBe('ok');
  });

  it('of one container’s root are no other’s', async () => {
    await newPod();
    const [a, b] = [await pods.start(pod), await pods.start(pod)];
    await pods.ask(a, 'echo changed > /etc/passwd; rm /bin/vi; touch /new');
    expect(await pods.ask(b, 'ls /bin/vi; head -c 4 /etc/passwd; ls /new 2>&1 | tail -c 10')).toMatch(
      /^\/bin\/vi\nroot.*directory$/s,
    );
  });
});

describe('security', () => {
  const proc = (id: string, key: string) => pods.ask(id, `awk '/^${key}:/{print $2}' /proc/self/status`);
  const effective = async (context: LinuxContainerSecurityContext) =>
    BigInt(`0x${await proc(await pods.start(pod, { ...IDLE, ...secure(context) }), 'CapEff')}`);
  const bit = (n: number) => 1n << BigInt(n);
  const [CHOWN, NET_BIND, NET_ADMIN, SYS_ADMIN] = [0, 10, 12, 21];

  it('capabilities: the usual ones, less what is dropped, with what is added', async () => {
    await newPod();
    const usual = await effective({});
    expect([usual & bit(CHOWN), usual & bit(NET_BIND)]).toEqual([bit(CHOWN), bit(NET_BIND)]);
    expect([usual & bit(NET_ADMIN), usual & bit(SYS_ADMIN)]).toEqual([0n, 0n]);
    expect(await effective({ capabilities: { add_capabilities: ['NET_ADMIN'] } })).toBe(
      usual | bit(NET_ADMIN),
    );
    expect(await effective({ capabilities: { drop_capabilities: ['CHOWN'] } })).toBe(usual & ~bit(CHOWN));
    expect(
      await effective({
        capabilities: { drop_capabilities: ['ALL'], add_capabilities: ['CAP_NET_BIND_SERVICE'] },
      }),
    ).toBe(bit(NET_BIND));
    expect(await effective({ run_as_user: { value: 1000 } })).toBe(0n);
    const ambient = { add_ambient_capabilities: ['NET_BIND_SERVICE'] };
    expect(await effective({ run_as_user: { value: 1000 }, capabilities: ambient })).toBe(bit(NET_BIND));
  });

  it('no_new_privs, masked and read-only paths', async () => {
    await newPod();
    const id = await pods.start(pod, {
      ...IDLE,
      ...secure({
        no_new_privs: true,
        masked_paths: ['/proc/timer_list', '/proc/acpi', '/sys/firmware', '/no/such'],
        readonly_paths: ['/proc/sys', '/proc/sysrq-trigger'],
      }),
    });
    expect(await proc(id, 'NoNewPrivs')).toBe('1');
    expect(await pods.ask(id, 'wc -c </proc/timer_list; ls /sys/firmware | wc -l')).toBe('0\n0');
    expect((await pods.exec(id, ['sh', '-c', 'echo 1 > /proc/sys/kernel/printk'])).stderr).toContain(
      'Read-only',
    );
    const plain = await pods.start(pod);
    expect(await proc(plain, 'NoNewPrivs')).toBe('0');
  });

  it('seccomp: RuntimeDefault filters, a profile of the node’s decides, Unconfined does not', async () => {
    await newPod();
    const profile = path.join(berthd.dir, 'profile.json');
    const errno = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 }],
    };
    await writeFile(profile, JSON.stringify(errno));
    const seccomp = (profile_type: 'RuntimeDefault' | 'Unconfined' | 'Localhost', localhost_ref = '') =>
      secure({ seccomp: { profile_type, localhost_ref } });
    const script =
      "mkdir /made && echo made; awk '/^Seccomp:/{print $2}' /proc/self/status; unshare -n true && echo unshared";
    const admin = { add_capabilities: ['SYS_ADMIN'] };
    expect(await prints(script, seccomp('Localhost', profile))).toMatch(/^mkdir: .*not permitted\n2\n/);
    expect(await prints(script, seccomp('RuntimeDefault'))).toMatch(/^made\n2\n.*not permitted$/);
    expect(
      await prints(script, secure({ seccomp: { profile_type: 'Unconfined' }, capabilities: admin })),
    ).toBe('made\n0\nunshared');
    // A capability opens what the default profile closes without it.
    expect(
      await prints(script, secure({ seccomp: { profile_type: 'RuntimeDefault' }, capabilities: admin })),
    ).toBe('made\n2\nunshared');
  });

  it('privileged has the daemon’s capabilities, the node’s devices and writable kernel files', async () => {
    await privilegedPod();
    const id = await pods.start(pod, {
      ...IDLE,
      ...secure({ privileged: true, masked_paths: ['/proc/timer_list'] }),
    });
    const own = /^CapEff:\s+(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    expect(await proc(id, 'CapEff')).toBe(own);
    expect(await proc(id, 'Seccomp')).toBe('0');
    expect(
      await pods.ask(id, 'ls -d /dev/kmsg /dev/loop-control; mount -t tmpfs t /tmp && echo mounted'),
    ).toBe('/dev/kmsg\n/dev/loop-control\nmounted');
    expect(await pods.ask(id, 'wc -c </proc/timer_list')).not.toBe('0');
    expect(await pods.ask(id, "grep ' /sys ' /proc/mounts")).toMatch(/ rw/);
  });

  it('devices: those asked for, with the access asked for', async () => {
    await newPod();
    const script =
      'ls -l /dev/mine | cut -c1; head -c 0 </dev/mine && echo read; true >/dev/mine && echo written; ls /dev/kmsg 2>&1';
    const device = (permissions: string) => ({
      devices: [{ host_path: '/dev/loop-control', container_path: '/dev/mine', permissions }],
    });
    expect(await prints(script, device('r'))).toMatch(
      /^c\nread\n.*(not permitted|denied).*\n.*\/dev\/kmsg: No such file/s,
    );
    expect(await prints(script, device('rwm'))).toMatch(/^c\nread\nwritten\n/);
  });
});
