import { readFileSync } from 'node:fs';
import { chmod, copyFile, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { hardLimits } from '../../src/spec/rlimits.ts';
import { Berthd } from '../support/berthd.ts';
import { IDLE, OWN_PID, type Pod, Pods, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;
const umask = process.umask();

beforeAll(async () => {
  // A daemon with odd habits of its own, which containers must not inherit.
  process.umask(0o077);
  berthd = await Berthd.start({ keys: 'default_ulimits = ["nofile=512:999999999", "core=0", "nproc=4000"]' });
  process.umask(umask);
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => {
  process.umask(umask);
  expect(await berthd.close()).toEqual([]);
});

const secure = (more: LinuxContainerSecurityContext) => ({
  linux: { security_context: { ...OWN_PID, ...more } },
});
const start = (pod: Pod, more: LinuxContainerSecurityContext = {}) =>
  pods.start(pod, { ...IDLE, ...secure(more) });
/** Lines of a /proc/<pid>/status, of the container's first process and of a command that is run in it. */
const both = async (id: string, keys: string) =>
  Promise.all(
    ['1', 'self'].map((pid) => pods.ask(id, `grep -E '^(${keys}):' /proc/${pid}/status | tr -s '\\t ' ' '`)),
  );

describe('a container’s process and commands that are run in it have the same', () => {
  it('resource limits: the configured ones, as far as the daemon may set them', async () => {
    const id = await start(await pods.run());
    const own = readFileSync(`/proc/${berthd.pid}/limits`, 'utf8');
    const most = hardLimits(own).get('RLIMIT_NOFILE');
    const mayRaise =
      BigInt(`0x${/CapBnd:\s*(\w+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]}`) & (1n << 24n);
    const hard = mayRaise || most === undefined ? 999_999_999n : most;
    const open = `Max open files 512 ${hard} files`;
    // runc before 1.1.13 now and then loses this one limit of a command (opencontainers/runc#4195).
    await until('a command has the limit', async () =>
      (await pods.ask(id, "tr -s ' ' < /proc/self/limits")).includes(open),
    );
    expect(await pods.ask(id, "tr -s ' ' < /proc/1/limits")).toContain(open);
    for (const pid of ['1', 'self']) {
      const limits = await pods.ask(id, `tr -s ' ' < /proc/${pid}/limits`);
      expect(limits).toContain('Max core file size 0 0 bytes');
      expect(limits).toContain('Max processes 4000 4000 processes');
      // Not configured: as the daemon's.
      const stack = /^Max stack size +(\S+) +(\S+)/m.exec(own);
      expect(limits).toContain(`Max stack size ${stack?.[1]} ${stack?.[2]} bytes`);
    }
  });

  it('umask, 022, whatever the daemon’s', async () => {
    const pod = await pods.run();
    const id = await start(pod);
    expect(await both(id, 'Umask')).toEqual(['Umask: 0022', 'Umask: 0022']);
    const said = await pods.runToEnd(pod, sh('touch /x; mkdir /y; stat -c %a /x /y', secure({})));
    expect(said.log).toBe('644\n755\n');
  });

  it('user, groups, capabilities, no_new_privs and seccomp mode', async () => {
    const pod = await pods.run();
    const id = await start(pod, {
      run_as_user: { value: 1000 },
      run_as_group: { value: 5 },
      supplemental_groups: [7, 9],
      supplemental_groups_policy: 'Strict',
      no_new_privs: true,
      capabilities: { add_ambient_capabilities: ['NET_BIND_SERVICE'], drop_capabilities: ['ALL'] },
      seccomp: { profile_type: 'RuntimeDefault' },
    });
    const [first, later] = await both(
      id,
      'Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp',
    );
    expect(later).toBe(first);
    const bind = '0000000000000400';
    expect(first?.split('\n').map((line) => line.trim())).toEqual([
      'Uid: 1000 1000 1000 1000',
      'Gid: 5 5 5 5',
      'Groups: 5 7 9',
      ...['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((set) => `${set}: ${bind}`),
      'NoNewPrivs: 1',
      'Seccomp: 2',
    ]);
  });
});

describe('no_new_privs', () => {
  it('keeps a set-uid program from raising its user, and only with it', async () => {
    const pod = await pods.run();
    const dir = path.join(berthd.dir, 'suid');
    await mkdir(dir);
    await copyFile('/bin/dash', path.join(dir, 'shell'));
    await chmod(path.join(dir, 'shell'), 0o4755);
    const uids = async (no_new_privs: boolean) => {
      const said = await pods.runToEnd(pod, {
        // Builtins only: busybox's programs give up a user who is not the caller.
        command: ['/v/shell', '-p', '-c', 'while read -r l; do echo "$l"; done </proc/self/status'],
        mounts: [{ host_path: dir, container_path: '/v' }],
        ...secure({ no_new_privs, run_as_user: { value: 1000 } }),
      });
      return /^Uid:\s+(\d+)\s+(\d+)/m.exec(said.log)?.slice(1);
    };
    expect(await uids(false)).toEqual(['1000', '0']);
    expect(await uids(true)).toEqual(['1000', '1000']);
  });
});

describe('/sys', () => {
  it('is writable for a privileged container alone, whichever of its pod came first', async () => {
    const pod = await pods.run({
      linux: { cgroup_parent: berthd.cgroupParent, security_context: { privileged: true } },
    });
    // A figure of the pod's own loopback, left as it is.
    const figure = '/sys/class/net/lo/tx_queue_len';
    const write = `v=$(cat ${figure}); (echo $v > ${figure}) 2>&1 && echo written; grep -c cgroup /proc/self/mounts`;
    const [plain, privileged] = [await start(pod), await start(pod, { privileged: true })];
    expect(await pods.ask(plain, write)).toMatch(/Read-only file system\n[1-9]/);
    expect(await pods.ask(privileged, write)).toMatch(/^written\n[1-9]/);
  });
});
