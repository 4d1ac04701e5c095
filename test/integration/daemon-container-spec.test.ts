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
});

describe('security', () => {
  const proc = (id: string, key: string) => pods.ask(id, `awk '/^${key}:/{print $2}' /proc/self/status`);

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
