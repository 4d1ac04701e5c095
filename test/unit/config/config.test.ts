import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig, parseConfig } from '../../../src/config/load.ts';
import { defaultConfigText } from '../../../src/config/print-default.ts';

const DEFAULTS = {
  listen: 'unix:///run/berth/berth.sock',
  root: '/var/lib/berth',
  state: '/run/berth',
  log_level: 'info',
  default_runtime: 'runc',
  cgroup_driver: 'auto',
  pinned_images: [],
  seccomp_profile: '/usr/share/containers/seccomp.json',
  selinux: true,
  default_ulimits: [],
  cdi_spec_dirs: ['/etc/cdi', '/var/run/cdi'],
  conmon: '/usr/bin/conmon',
  pause: '/usr/bin/catatonit',
  network: { conf_dir: '/etc/cni/net.d', bin_dirs: ['/opt/cni/bin', '/usr/lib/cni'], gc: true },
  images: { registry_config_dir: '/etc/berth/certs.d', signatures: [] },
  streaming: {
    ...{ address: '127.0.0.1', port: 0, idle_timeout: 14_400 },
    ...{ tls_cert: '', tls_key: '', tls_client_ca: '' },
  },
  stats: { interval: 10 },
  cadvisor: { enabled: false, socket: '/var/run/crio/crio.sock' },
  metrics: { enabled: false, address: '127.0.0.1', port: 9539 },
  resource_view: { lxcfs_dir: '/var/lib/lxcfs', lxcfs: '', required: true },
  vm: {
    ...{ hypervisor: 'qemu', qemu: `/usr/bin/qemu-system-${process.arch === 'x64' ? 'x86_64' : 'aarch64'}` },
    ...{ machine: '', firecracker: '/usr/bin/firecracker', virtiofsd: '/usr/lib/qemu/virtiofsd' },
    ...{
      guest_dir: '/var/lib/berth/guest',
      vcpus: 1,
      max_vcpus: 8,
      memory: 192,
      default_memory: 512,
      max_memory: 0,
    },
    ...{ network: 'tcfilter', channel: 'auto', boot_timeout: 60, rootfs: 'virtiofs', disk_size: 10_240 },
  },
  runtimes: { runc: { type: 'oci', path: '/usr/sbin/runc', allowed_annotations: [], resource_view: false } },
};

describe('parseConfig', () => {
  it('fills in every default', () => {
    expect(parseConfig('', 'x')).toEqual(DEFAULTS);
  });

  it('takes every key', () => {
    const text = `
listen = "unix:///tmp/a.sock"
root = "/r"
state = "/s"
log_level = "trace"
default_runtime = "crun-1.8"
cgroup_driver = "systemd"
pinned_images = ["registry/pause:*"]
seccomp_profile = "/sec"
selinux = false
default_ulimits = ["nofile=1024:524288", "core=0"]
cdi_spec_dirs = ["/cdi"]
conmon = "/conmon"
pause = "/pause"
[network]
conf_dir = "/cni"
bin_dirs = ["/a", "/b"]
gc = false
[images]
registry_config_dir = "/certs"
[[images.signatures]]
names = ["a.example/**"]
policy = "signed"
keys = ["/k.pub"]
identities = ["b.example/**"]
[streaming]
address = "::1"
port = 65535
idle_timeout = 60
tls_cert = "/c"
tls_key = "/k"
tls_client_ca = "/ca"
[stats]
interval = 2
[cadvisor]
enabled = true
socket = "/c.sock"
[metrics]
enabled = true
address = "::"
port = 0
[resource_view]
lxcfs_dir = "/l"
lxcfs = "/lxcfs"
required = false
[vm]
hypervisor = "firecracker"
qemu = "/q"
machine = "pc"
firecracker = "/f"
virtiofsd = "/v"
guest_dir = "/g"
vcpus = 2
max_vcpus = 4
memory = 64
default_memory = 32
max_memory = 128
network = "macvtap"
channel = "vsock"
boot_timeout = 9
rootfs = "erofs"
disk_size = 16
[runtimes."crun-1.8"]
path = "/usr/bin/crun"
[runtimes.kata]
type = "shim"
path = "/usr/bin/shim"
allowed_annotations = ["io.katacontainers.*"]
resource_view = true
[runtimes.vm]
type = "vm"
hypervisor = "qemu"
rootfs = "block"
`;
    expect(parseConfig(text, 'x')).toEqual({
      listen: 'unix:///tmp/a.sock',
      root: '/r',
      state: '/s',
      log_level: 'trace',
      default_runtime: 'crun-1.8',
      cgroup_driver: 'systemd',
      pinned_images: ['registry/pause:*'],
      seccomp_profile: '/sec',
      selinux: false,
      default_ulimits: ['nofile=1024:524288', 'core=0'],
      cdi_spec_dirs: ['/cdi'],
      conmon: '/conmon',
      pause: '/pause',
      network: { conf_dir: '/cni', bin_dirs: ['/a', '/b'], gc: false },
      images: {
        registry_config_dir: '/certs',
        signatures: [
          { names: ['a.example/**'], policy: 'signed', keys: ['/k.pub'], identities: ['b.example/**'] },
        ],
      },
      streaming: {
        ...{ address: '::1', port: 65535, idle_timeout: 60 },
        ...{ tls_cert: '/c', tls_key: '/k', tls_client_ca: '/ca' },
      },
      stats: { interval: 2 },
      cadvisor: { enabled: true, socket: '/c.sock' },
      metrics: { enabled: true, address: '::', port: 0 },
      resource_view: { lxcfs_dir: '/l', lxcfs: '/lxcfs', required: false },
      vm: {
        ...{ hypervisor: 'firecracker', qemu: '/q', machine: 'pc', firecracker: '/f', virtiofsd: '/v' },
        ...{ guest_dir: '/g', vcpus: 2, max_vcpus: 4, memory: 64, default_memory: 32, max_memory: 128 },
        ...{ network: 'macvtap', channel: 'vsock', boot_timeout: 9, rootfs: 'erofs', disk_size: 16 },
      },
      runtimes: {
        'crun-1.8': { type: 'oci', path: '/usr/bin/crun', allowed_annotations: [], resource_view: false },
        kata: {
          type: 'shim',
          path: '/usr/bin/shim',
          allowed_annotations: ['io.katacontainers.*'],
          resource_view: true,
        },
        vm: {
          ...{ type: 'vm', path: '', allowed_annotations: [], resource_view: false },
          ...{ hypervisor: 'qemu', rootfs: 'block' },
        },
      },
    });
  });

  it('fills in the rest of a table that is begun', () => {
    expect(parseConfig('[network]\nconf_dir = "/cni"', 'x').network).toEqual({
      conf_dir: '/cni',
      bin_dirs: DEFAULTS.network.bin_dirs,
      gc: true,
    });
  });

  it.each([
    ['frob = 1', 'unknown key frob'],
    ['a = 1\nb = 2', 'unknown key a, b'],
    ['[network]\nfrob = 1', 'unknown key network.frob'],
    ['[metric]\nport = 1', 'unknown key metric'],
    ['[metrics]\nfrob = 1', 'unknown key metrics.frob'],
    ['[runtimes.runc]\npath = "/r"\nfrob = 1', 'unknown key runtimes.runc.frob'],
    ['listen = "/run/x.sock"', /^listen: must be unix:\/\/ and an absolute path/],
    ['listen = "unix://x.sock"', /^listen: must be unix:\/\//],
    ['root = "lib"', 'root: must be an absolute path'],
    ['root = ""', 'root: must be an absolute path'],
    ['root = "/a\\u0000"', 'root: must be an absolute path'],
    ['state = 5', /^state: .*expected string/],
    ['log_level = "loud"', /^log_level: .*"trace"\|"debug"\|"info"/],
    ['cgroup_driver = "cgroup"', /^cgroup_driver: .*"auto"\|"systemd"\|"cgroupfs"/],
    ['pinned_images = "x"', /^pinned_images: .*expected array/],
    ['pinned_images = ["a", 2]', /^pinned_images\.1: .*expected string/],
    ['[network]\nbin_dirs = []', /^network\.bin_dirs: /],
    ['[network]\nbin_dirs = ["/a", "b"]', 'network.bin_dirs.1: must be an absolute path'],
    ['network = 5', /^network: .*expected object/],
    ['[streaming]\nport = 65536', /^streaming\.port: /],
    ['[streaming]\nport = -1', /^streaming\.port: /],
    ['[streaming]\nport = 1.5', /^streaming\.port: /],
    ['[streaming]\nport = "1"', /^streaming\.port: /],
    ['[streaming]\naddress = ""', /^streaming\.address: /],
    ['[streaming]\nidle_timeout = -1', /^streaming\.idle_timeout: /],
    ['[streaming]\ntls_cert = "c"', /^streaming\.tls_cert: /],
    ['[streaming]\ntls_cert = "/c"', /^streaming: tls_cert and tls_key go together/],
    ['[streaming]\ntls_client_ca = "/c"', /^streaming: tls_client_ca needs/],
    ['[[images.signatures]]\npolicy = "accept"', /^images\.signatures\.0\.names: /],
    ['[[images.signatures]]\nnames = ["a"]\npolicy = "trust"', /^images\.signatures\.0\.policy: .*"signed"/],
    [
      '[[images.signatures]]\nnames = ["a"]\npolicy = "signed"',
      /^images\.signatures\.0: keys and the policy/,
    ],
    ['[runtimes.runc]\ntype = "oci"', /^runtimes\.runc\.path: /],
    ['[runtimes.runc]\npath = "runc"', 'runtimes.runc.path: must be an absolute path'],
    ['[runtimes.runc]\npath = "/r"\ntype = "virtual"', /^runtimes\.runc\.type: .*"oci"\|"shim"\|"vm"/],
    // A handler's name becomes a directory.
    ['[runtimes."../x"]\npath = "/r"\n[runtimes.runc]\npath = "/r"', /^runtimes\.\.\.\/x: /],
    ['[runtimes.kata]\npath = "/r"', 'default_runtime: "runc" is not among runtimes (kata)'],
    ['default_runtime = "kata"', 'default_runtime: "kata" is not among runtimes (runc)'],
    ['default_runtime = "toString"', /^default_runtime: /],
    ['default_runtime = "constructor"', 'default_runtime: "constructor" is not among runtimes (runc)'],
  ])('refuses %j by name', (text, problem) => {
    let message: unknown;
    try {
      parseConfig(text, 'c.toml');
    } catch (e: unknown) {
      expect(e).toMatchObject({ kind: 'invalid' });
      ({ message } = e as Error);
    }
    expect(message).toMatch(/^c\.toml: /);
    const told = String(message).slice('c.toml: '.length);
    if (typeof problem === 'string') expect(told).toBe(problem);
    else expect(told).toMatch(problem);
  });

  it('tells all that is wrong at once', () => {
    expect(() => parseConfig('root = "a"\nfrob = 1\nstate = "b"', 'c.toml')).toThrow(
      /^c\.toml: (?=.*root: must be)(?=.*state: must be)(?=.*unknown key frob)/,
    );
  });

  it('says where text is no TOML', () => {
    expect(() => parseConfig('root = "/a"\nstate == 5\n', 'c.toml')).toThrow(
      expect.objectContaining({
        kind: 'invalid',
        message: expect.stringMatching(/^c\.toml:2:\d+: not TOML: [^\n]+$/),
      }),
    );
    expect(() => parseConfig('root = "/a"\nroot = "/b"', 'c.toml')).toThrow(/^c\.toml:2:\d+: not TOML: /);
  });
});

describe('loadConfig', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'berth-config-'));
  });
  afterAll(() => rm(dir, { recursive: true }));

  it('reads a file', async () => {
    const file = path.join(dir, 'a.toml');
    await writeFile(file, 'log_level = "warn"');
    expect((await loadConfig(file)).log_level).toBe('warn');
  });

  it('names a file that it was told to read and cannot', async () => {
    await expect(loadConfig(path.join(dir, 'none.toml'))).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringMatching(new RegExp(`^configuration ${dir}/none\\.toml cannot be read: ENOENT`)),
    });
    await expect(loadConfig(dir)).rejects.toThrow(/cannot be read: EISDIR/);
  });

  it('names the file in which a key is wrong', async () => {
    const file = path.join(dir, 'b.toml');
    await writeFile(file, 'frob = 1');
    await expect(loadConfig(file)).rejects.toThrow(`${file}: unknown key frob`);
  });
});

describe('defaultConfigText', () => {
  const text = defaultConfigText();

  it('reads back as the defaults', () => {
    expect(parseConfig(text, 'x')).toEqual(DEFAULTS);
  });

  it('explains every key and table', () => {
    const lines = text.split('\n').filter((line) => line !== '');
    const unexplained = lines.filter((line, i) => !line.startsWith('#') && !/^# ./.test(lines[i - 1] ?? ''));
    expect(unexplained).toEqual([]);
  });
});
