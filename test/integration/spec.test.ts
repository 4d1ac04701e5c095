import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerSecurity } from '../../src/container/config.ts';
import { buildContainerSpec } from '../../src/spec/container.ts';
import { findDevices, hostDevices } from '../../src/spec/devices.ts';
import { type HostFacts, readHostFacts } from '../../src/spec/host.ts';
import { stringifyOci } from '../../src/spec/json.ts';
import { execProcess } from '../../src/spec/process.ts';
import { buildSandboxSpec } from '../../src/spec/sandbox.ts';
import type { SeccompProfile } from '../../src/spec/seccomp.ts';
import { loadSeccomp } from '../../src/spec/seccomp-load.ts';
import type { Spec } from '../../src/spec/types.ts';
import { pinNamespaces, setHostname, unpinNamespaces } from '../../src/sys/namespaces.ts';
import {
  containerConfig,
  containerInput,
  imageConfig,
  mount,
  namespaces,
  sandboxConfig,
} from '../unit/spec/configs.ts';

const run = promisify(execFile);
const TAG = `berthspec${randomBytes(4).toString('hex')}`;
const RUNTIME_DEFAULT = { type: 'runtimeDefault', localhostRef: '' } as const;

let dir = '';
let host: HostFacts;
let seccomp: SeccompProfile | undefined;
let pausePid = 0;

const runc = (...args: string[]) => run('runc', ['--root', join(dir, 'runc'), ...args], { timeout: 20_000 });

/** A root file system with Debian's busybox, the libraries it needs, and a user of rank none. */
async function makeRootfs(rootfs: string): Promise<void> {
  const { stdout } = await run('ldd', ['/bin/busybox']);
  const libraries = stdout.match(/\/[^\s]+/g) ?? [];
  for (const file of ['/bin/busybox', ...libraries]) {
    await mkdir(join(rootfs, dirname(file)), { recursive: true });
    await copyFile(file, join(rootfs, file));
    await chmod(join(rootfs, file), 0o755);
  }
  await symlink('busybox', join(rootfs, 'bin/sh'));
  await mkdir(join(rootfs, 'etc'));
  await mkdir(join(rootfs, 'tmp'), { mode: 0o1777 });
  await writeFile(
    join(rootfs, 'etc/passwd'),
    'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n',
  );
  await writeFile(join(rootfs, 'etc/group'), 'root:x:0:\napp:x:1001:\nshared:x:2000:app\n');
}

const readRootfsFile = (path: string): Promise<string> => readFile(join(dir, 'rootfs', path), 'utf8');

async function writeBundle(name: string, spec: Spec): Promise<string> {
  const bundle = join(dir, name);
  await mkdir(bundle);
  await writeFile(join(bundle, 'config.json'), stringifyOci(spec));
  return bundle;
}

function pins() {
  return { net: join(dir, 'ns/net'), uts: join(dir, 'ns/uts'), ipc: join(dir, 'ns/ipc') };
}

/** `key=value` lines that a script printed. */
function facts(text: string): Record<string, string> {
  return Object.fromEntries(
    text
      .split('\n')
      .flatMap((l) => (l.includes('=') ? [[l.split('=', 1)[0], l.slice(l.indexOf('=') + 1)]] : [])),
  );
}

interface Case {
  name: string;
  script: string;
  security?: Partial<ContainerSecurity>;
  over?: Parameters<typeof containerConfig>[0];
  privilegedSandbox?: boolean;
}

async function containerSpec({ name, script, security, over }: Case): Promise<Spec> {
  const config = containerConfig({ command: ['busybox', 'sh', '-c', script], ...over }, security);
  const files = Object.fromEntries(
    ['hosts', 'hostname', 'resolvConf', 'shm'].map((file) => [file, join(dir, 'sandbox', file)]),
  );
  return buildContainerSpec(
    containerInput({
      config,
      image: imageConfig({ user: 'app', env: ['FROM_IMAGE=yes'] }),
      rootfs: join(dir, 'rootfs'),
      cgroupsPath: `/${TAG}-${name}`,
      namespaces: { ...pins(), pid: `/proc/${pausePid}/ns/pid` },
      files,
      devices: await findDevices(config.devices),
      hostDevices: config.security.privileged ? await hostDevices() : [],
      seccomp,
      host,
      readRootfsFile,
    }),
  );
}

async function inContainer(c: Case): Promise<Record<string, string>> {
  const bundle = await writeBundle(c.name, await containerSpec(c));
  const { stdout } = await runc('run', '-b', bundle, `${TAG}-${c.name}`);
  return facts(stdout);
}

const STATUS = `sed -n 's/^\\([A-Za-z_]*\\):[ \\t]*/\\1=/p' /proc/self/status;`;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'berth-spec-'));
  // The user of the container must be able to walk to its root.
  await chmod(dir, 0o755);
  host = await readHostFacts({
    unifiedCgroups: existsSync('/sys/fs/cgroup/cgroup.controllers'),
    swapAccounting: existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    hugetlb: existsSync('/sys/fs/cgroup/hugetlb'),
  });
  seccomp = await loadSeccomp(RUNTIME_DEFAULT, false, 'seccomp');
  await makeRootfs(join(dir, 'rootfs'));
  for (const sub of ['pause', 'pause/rootfs', 'sandbox', 'sandbox/shm', 'volume'])
    await mkdir(join(dir, sub));
  for (const file of ['hosts', 'hostname', 'resolvConf'])
    await writeFile(join(dir, 'sandbox', file), `${file}\n`);
  await chmod(join(dir, 'sandbox/shm'), 0o1777);
  await writeFile(join(dir, 'volume/file'), 'content\n');
  pinNamespaces(join(dir, 'ns'), ['net', 'uts', 'ipc'], () => setHostname('spec-pod'));
  const spec = buildSandboxSpec({
    allowedAnnotations: [],
    selinux: {},
    id: TAG,
    config: sandboxConfig(
      {
        hostname: 'spec-pod',
        sysctls: { 'net.ipv4.ip_unprivileged_port_start': '99', 'kernel.shmmni': '77' },
      },
      { namespaces: namespaces({ pid: 'pod' }) },
    ),
    namespaces: pins(),
    cgroupsPath: `/${TAG}-pause`,
    pauseBinary: '/usr/bin/catatonit',
    rootfs: join(dir, 'pause/rootfs'),
    host,
    seccomp,
  });
  await writeFile(join(dir, 'pause/config.json'), stringifyOci(spec));
  // A pipe would stay open in the pause process, and waiting for its end would never return.
  await run('sh', [
    '-c',
    'exec runc "$@" >/dev/null 2>"$0"',
    join(dir, 'pause/err'),
    '--root',
    join(dir, 'runc'),
    'run',
    '-d',
    '--pid-file',
    join(dir, 'pause/pid'),
    '-b',
    join(dir, 'pause'),
    `${TAG}-pause`,
  ]).catch(async () => expect.fail(await readFile(join(dir, 'pause/err'), 'utf8')));
  pausePid = Number(await readFile(join(dir, 'pause/pid'), 'utf8'));
}, 60_000);

afterAll(async () => {
  const left = existsSync(join(dir, 'runc')) ? await readdir(join(dir, 'runc')) : [];
  for (const id of left) await runc('delete', '-f', id);
  if (existsSync(join(dir, 'ns'))) unpinNamespaces(join(dir, 'ns'));
  await rm(dir, { recursive: true, force: true });
}, 60_000);

describe('the pause container', () => {
  it('sleeps in the pinned namespaces without any right', async () => {
    // `runc run --detach` returns a moment before its child becomes the program.
    const comm = () => readFile(`/proc/${pausePid}/comm`, 'utf8');
    await expect.poll(comm).not.toContain('runc');
    const status = facts((await readFile(`/proc/${pausePid}/status`, 'utf8')).replaceAll(':\t', '='));
    const none = '0000000000000000';
    expect(status).toMatchObject({ CapPrm: none, CapEff: none, CapBnd: none, CapInh: none, CapAmb: none });
    expect(status).toMatchObject({ NoNewPrivs: '1', Seccomp: '2', State: 'S (sleeping)' });
    expect(status.Uid).toBe('65535\t65535\t65535\t65535');
    const score = Number(await readFile(`/proc/${pausePid}/oom_score_adj`, 'utf8'));
    expect(score).toBe(Math.max(-998, host.minOomScoreAdj));
  });

  it('reaps what containers leave behind in a shared PID namespace', async () => {
    const script =
      'busybox sh -c "busybox sleep 0.01 & echo orphan=\\$!"; echo init=$(busybox cat /proc/1/comm)';
    const c = { name: 'orphan', script, security: { namespaces: namespaces({ pid: 'pod' }) } };
    const seen = await inContainer(c);
    expect(seen.init).toBe('pause');
    expect(Number(seen.orphan)).toBeGreaterThan(1);
    await expect.poll(() => readFile(`/proc/${pausePid}/task/${pausePid}/children`, 'utf8')).toBe('');
    expect((await readFile(`/proc/${pausePid}/status`, 'utf8')).match(/^State:\s*(\w)/m)?.[1]).toBe('S');
  });
});

describe('an ordinary container', () => {
  const script = `${STATUS}
    echo id=$(busybox id -u):$(busybox id -g):$(busybox id -G)
    echo env=$FROM_IMAGE:$HOSTNAME:$HOME
    echo hostname=$(busybox hostname)
    echo cwd=$(busybox pwd)
    echo port=$(busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start)
    echo shmmni=$(busybox cat /proc/sys/kernel/shmmni)
    echo version=$(busybox wc -c < /proc/version)
    echo bus=$(busybox ls /proc/bus | busybox wc -l)
    echo hosts=$(busybox cat /etc/hosts) resolv=$(busybox cat /etc/resolv.conf)
    echo volume=$(busybox cat /volume/file)
    busybox touch /volume/new 2>/dev/null; echo volumeWrite=$?
    busybox touch /proc/sys/x 2>/dev/null; echo procWrite=$?
    busybox grep -q ' /proc/sys proc ro' /proc/mounts; echo procSysReadonly=$?
    busybox touch /dev/shm/x; echo shmWrite=$?
    echo memory=$(busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)
    for ns in net uts ipc pid mnt; do echo $ns=$(busybox readlink /proc/self/ns/$ns); done
    busybox chroot / /bin/busybox true 2>/dev/null; echo chroot=$?
  `;
  let seen: Record<string, string> = {};
  beforeAll(async () => {
    seen = await inContainer({
      name: 'plain',
      script: script.replaceAll('sed ', 'busybox sed '),
      over: {
        workingDir: '/work',
        oomScoreAdj: -900n,
        mounts: [mount({ containerPath: '/volume', hostPath: join(dir, 'volume'), readonly: true })],
        resources: { memoryLimitBytes: 64n * 1024n * 1024n, cpuShares: 512n },
      },
      security: {
        noNewPrivs: true,
        supplementalGroups: [3000n],
        capabilities: { add: ['SYS_RESOURCE'], drop: ['CHOWN'], ambient: [] },
        maskedPaths: ['/proc/version', '/proc/bus', '/proc/nonesuch'],
        readonlyPaths: ['/proc/sys'],
      },
    });
  }, 30_000);

  it('runs as the user of the image, with its groups and those asked for', () => {
    expect(seen.id).toBe('1000:1001:1001 2000 3000');
    expect(seen.env).toBe('yes:web:/home/app');
    expect(seen.cwd).toBe('/work');
  });

  it('has the rights that the spec says, cut down to the daemon’s', () => {
    // CHOWN is bit 0, and what the daemon lacks is not there.
    const bounding = BigInt(`0x${seen.CapBnd}`);
    expect(bounding & 1n).toBe(0n);
    expect((bounding & (1n << 24n)) !== 0n).toBe(host.caps.has('CAP_SYS_RESOURCE'));
    expect(bounding & (1n << 10n)).not.toBe(0n);
    expect(seen).toMatchObject({ CapEff: '0000000000000000', CapInh: '0000000000000000', NoNewPrivs: '1' });
    expect(seen.Seccomp).toBe('2');
    expect(seen.chroot).not.toBe('0');
  });

  it('sees the sandbox’s namespaces, files and sysctls', async () => {
    expect(seen).toMatchObject({
      hostname: 'spec-pod',
      port: '99',
      shmmni: '77',
      hosts: 'hosts resolv=resolvConf',
    });
    for (const ns of ['net', 'uts', 'ipc'])
      expect(seen[ns]).toBe(await readlink(`/proc/${pausePid}/ns/${ns}`));
    for (const ns of ['pid', 'mnt']) expect(seen[ns]).not.toBe(await readlink(`/proc/${pausePid}/ns/${ns}`));
  });

  it('has the limits that were asked for', () => {
    expect(seen.memory).toBe(String(64 * 1024 * 1024));
  });

  it('cannot see or write what is masked or read-only', () => {
    expect(seen).toMatchObject({ version: '0', bus: '0', procSysReadonly: '0', volume: 'content' });
    expect(seen.volumeWrite).not.toBe('0');
    expect(seen.procWrite).not.toBe('0');
    expect(seen.shmWrite).toBe('0');
  });
});

it('a container of root has its capabilities and a read-only root, and no other device', async () => {
  const seen = await inContainer({
    name: 'root',
    script: `${STATUS.replace('sed', 'busybox sed')}
      busybox touch /x 2>/dev/null; echo rootWrite=$?
      busybox head -c 1 /dev/fusetest 2>&1 >/dev/null; echo fuse=$?
      busybox mount -t tmpfs none /mnt 2>/dev/null; echo mount=$?`,
    over: { devices: [{ containerPath: '/dev/fusetest', hostPath: '/dev/zero', permissions: 'r' }] },
    security: {
      runAsUser: 0n,
      readonlyRootfs: true,
      capabilities: { add: ['NET_BIND_SERVICE'], drop: ['ALL'], ambient: [] },
    },
  });
  expect(seen).toMatchObject({ CapEff: '0000000000000400', CapBnd: '0000000000000400', fuse: '0' });
  expect(seen.rootWrite).not.toBe('0');
  expect(seen.mount).not.toBe('0');
});

it('a device node that a container makes for itself is of no use unless it was allowed', async () => {
  const seen = await inContainer({
    name: 'mknod',
    script: `busybox mknod /tmp/zero c 1 5; busybox head -c 1 /tmp/zero >/dev/null; echo zero=$?
      busybox mknod /tmp/fuse c 10 229; echo fuse=$(busybox dd if=/tmp/fuse count=0 2>&1)`,
    security: { runAsUser: 0n },
  });
  expect(seen.zero).toBe('0');
  expect(seen.fuse).toContain('Operation not permitted');
});

it('ambient capabilities reach a user who is not root', async () => {
  const seen = await inContainer({
    name: 'ambient',
    script: STATUS.replace('sed', 'busybox sed'),
    security: { runAsUser: 1000n, capabilities: { add: [], drop: ['ALL'], ambient: ['NET_BIND_SERVICE'] } },
  });
  expect(seen).toMatchObject({ CapEff: '0000000000000400', CapAmb: '0000000000000400' });
});

it('a privileged container has everything that the daemon has', async () => {
  const seen = await inContainer({
    name: 'privileged',
    script: `${STATUS.replace('sed', 'busybox sed')}
      busybox mount -t tmpfs none /tmp; echo mount=$?
      busybox grep -q ' /sys sysfs rw' /proc/mounts; echo sysWritable=$?
      echo devices=$(busybox find /dev -type b -o -type c | busybox sort | busybox tr '\\n' ' ')
      echo version=$(busybox wc -c < /proc/version)`,
    security: { runAsUser: 0n, privileged: true, maskedPaths: ['/proc/version'] },
  });
  const own = /^CapBnd:\s*(\w+)/m.exec(await readFile('/proc/self/status', 'utf8'))?.[1];
  expect(seen).toMatchObject({ CapBnd: own, CapEff: own, Seccomp: '0', mount: '0', sysWritable: '0' });
  expect(Number(seen.version)).toBeGreaterThan(0);
  const missing = (await hostDevices()).filter((d) => !seen.devices?.split(' ').includes(d.path));
  expect(missing).toEqual([]);
});

it('mounts propagate, and recursive read-only reaches what is mounted below', async () => {
  const source = join(dir, 'source');
  await mkdir(join(source, 'sub'), { recursive: true });
  await run('mount', ['--bind', source, source]);
  try {
    await run('mount', ['--make-shared', source]);
    await run('mount', ['-t', 'tmpfs', 'none', join(source, 'sub')]);
    const seen = await inContainer({
      name: 'tree',
      script: `busybox touch /plain/sub/x; echo plain=$?
        busybox touch /deep/sub/x 2>/dev/null; echo deep=$?
        echo slave=$(busybox grep -c ' /slave .* master:' /proc/self/mountinfo)
        echo shared=$(busybox grep -c ' /shared .* shared:' /proc/self/mountinfo)
        echo private=$(busybox grep ' /plain ' /proc/self/mountinfo | busybox grep -c -E 'shared:|master:')`,
      over: {
        mounts: [
          mount({ containerPath: '/deep', hostPath: source, readonly: true, recursiveReadOnly: true }),
          mount({ containerPath: '/plain', hostPath: source, readonly: true }),
          mount({ containerPath: '/slave', hostPath: source, propagation: 'hostToContainer' }),
          mount({ containerPath: '/shared', hostPath: source, propagation: 'bidirectional' }),
        ],
      },
      security: { runAsUser: 0n },
    });
    expect(seen).toMatchObject({ plain: '0', slave: '1', shared: '1', private: '0' });
    expect(seen.deep).not.toBe('0');
  } finally {
    await run('umount', ['-R', source]);
  }
});

it('a command that is run later has the user, rights and directory of the container', async () => {
  const name = 'exec';
  const spec = await containerSpec({
    name,
    script: 'busybox sleep 60',
    over: { workingDir: '/work' },
    security: { noNewPrivs: true },
  });
  const bundle = await writeBundle(name, spec);
  await run('sh', [
    '-c',
    'exec runc "$@" >/dev/null 2>&1',
    'sh',
    '--root',
    join(dir, 'runc'),
    'run',
    '-d',
    '-b',
    bundle,
    `${TAG}-${name}`,
  ]);
  const process = execProcess(
    spec.process,
    [
      'busybox',
      'sh',
      '-c',
      `${STATUS.replace('sed', 'busybox sed')} echo in=$(busybox pwd):$(busybox id -u):$HOME`,
    ],
    false,
  );
  await writeFile(join(bundle, 'process.json'), stringifyOci(process));
  const { stdout } = await runc('exec', '-p', join(bundle, 'process.json'), `${TAG}-${name}`);
  const seen = facts(stdout);
  expect(seen).toMatchObject({ in: '/work:1000:/home/app', NoNewPrivs: '1', Seccomp: '2' });
  await runc('delete', '-f', `${TAG}-${name}`);
});
