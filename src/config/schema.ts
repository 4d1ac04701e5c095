import { z } from 'zod';
import { messageOf } from '../errors.ts';
import { parseUlimits } from '../spec/rlimits.ts';

/**
 * berthd's configuration: the one schema from which defaults, validation and `berthd config default`
 * come. Each key's description becomes its comment in the printed file.
 */

const absolutePath = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path');
const optionalPath = z.union([z.literal(''), absolutePath]);
const handlerName = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

const hypervisor = z.enum(['qemu', 'firecracker']);
const rootfs = z.enum(['virtiofs', 'erofs', 'block']);

const runtimeKeys = z.strictObject({
  type: z
    .enum(['oci', 'shim', 'vm'])
    .default('oci')
    .describe(
      '"oci": a program with runc\'s command line; "shim": a containerd shim v2; "vm": virtual machines',
    ),
  path: optionalPath.default('').describe('The program; "vm" has its own'),
  allowed_annotations: z
    .array(z.string().min(1))
    .default([])
    .describe('Globs of the annotations of pods and containers that the program is told'),
  resource_view: z
    .boolean()
    .default(false)
    .describe('Containers see their own share of the machine, unless their pod says otherwise'),
  hypervisor: hypervisor.optional().describe('In place of vm.hypervisor, for this handler of type "vm"'),
  rootfs: rootfs.optional().describe('In place of vm.rootfs, for this handler of type "vm"'),
});

const runtime = runtimeKeys.refine(({ type, path }) => type === 'vm' || path !== '', {
  path: ['path'],
  message: 'the program must be given',
});

const network = z.strictObject({
  conf_dir: absolutePath
    .default('/etc/cni/net.d')
    .describe('Where CNI configurations are; watched, no restart needed'),
  bin_dirs: z
    .array(absolutePath)
    .min(1)
    .default(['/opt/cni/bin', '/usr/lib/cni'])
    .describe('Where CNI plugins are, in order of search'),
  gc: z
    .boolean()
    .default(true)
    .describe(
      'Plugins are told at start which pods live, and free the rest; false: others share the network',
    ),
});

const signatureRule = z
  .strictObject({
    names: z.array(z.string().min(1)).min(1).describe('Globs of repositories, with their registry'),
    policy: z
      .enum(['accept', 'reject', 'signed'])
      .describe('"signed": the image must have a signature of cosign by one of the keys'),
    keys: z.array(absolutePath).default([]).describe('PEM files of public keys; read for each pull'),
    identities: z
      .array(z.string().min(1))
      .default([])
      .describe("Globs of the repositories that a signature may be for; none: the image's own"),
  })
  .refine((r) => (r.policy === 'signed') === r.keys.length > 0, 'keys and the policy "signed" go together');

const images = z.strictObject({
  registry_config_dir: absolutePath
    .default('/etc/berth/certs.d')
    .describe(
      'Folder of <host>/hosts.toml files: mirrors, certificates, plain http; read afresh when changed',
    ),
  signatures: z
    .array(signatureRule)
    .default([])
    .describe(
      'Rules for the signatures of images; the first whose names fit counts, without one all may be pulled',
    ),
});

const resourceView = z.strictObject({
  lxcfs_dir: absolutePath
    .default('/var/lib/lxcfs')
    .describe('Where lxcfs is mounted, which tells each container its own share of the machine'),
  lxcfs: optionalPath
    .default('')
    .describe('The program, started when nothing is mounted there; "": somebody else starts it'),
  required: z
    .boolean()
    .default(true)
    .describe('Without lxcfs a container that is to have a view is refused; false: it sees the whole node'),
});

const streaming = z
  .strictObject({
    address: z
      .string()
      .min(1)
      .default('127.0.0.1')
      .describe('Where exec, attach and port-forward are served'),
    port: z.int().min(0).max(65535).default(0).describe('0 picks a free port'),
    idle_timeout: z
      .int()
      .min(0)
      .max(2_000_000)
      .default(14_400)
      .describe('Seconds without traffic after which a connection is closed; 0: never'),
    tls_cert: optionalPath.default('').describe('PEM file of a certificate; with tls_key, https is served'),
    tls_key: optionalPath.default('').describe("PEM file of the certificate's key"),
    tls_client_ca: optionalPath
      .default('')
      .describe('PEM file of an authority; clients must show a certificate of it'),
  })
  .refine((s) => (s.tls_cert === '') === (s.tls_key === ''), 'tls_cert and tls_key go together')
  .refine((s) => s.tls_client_ca === '' || s.tls_cert !== '', 'tls_client_ca needs tls_cert and tls_key');

const stats = z.strictObject({
  interval: z
    .int()
    .min(1)
    .max(3600)
    .default(10)
    .describe('Seconds between two samples of CPU use, over which rates are measured'),
});

const metrics = z.strictObject({
  enabled: z.boolean().default(false).describe('Whether metrics are served over HTTP, for Prometheus'),
  address: z.string().min(1).default('127.0.0.1').describe('Where; there is no access control'),
  port: z.int().min(0).max(65535).default(9539).describe('0 picks a free port, which is in the log'),
});

const vm = z.strictObject({
  hypervisor: hypervisor.default('qemu').describe('What runs the virtual machines of handlers of type "vm"'),
  qemu: absolutePath
    .default(`/usr/bin/qemu-system-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}`)
    .describe('The program, for hypervisor = "qemu"'),
  machine: z
    .string()
    .regex(/^[a-z0-9.-]*$/)
    .default('')
    .describe('Its machine type; "": q35'),
  firecracker: absolutePath
    .default('/usr/bin/firecracker')
    .describe('The program, for hypervisor = "firecracker"'),
  virtiofsd: absolutePath
    .default('/usr/lib/qemu/virtiofsd')
    .describe('The program that shows root file systems and volumes to a virtual machine'),
  rootfs: rootfs
    .default('virtiofs')
    .describe(
      'How root file systems of containers come into the guest: "virtiofs"; "erofs": a read-only disk for each image ' +
        'and a writable one for each container; "block": one writable disk for each container',
    ),
  disk_size: z
    .int()
    .min(16)
    .max(16_777_216)
    .default(10_240)
    .describe('MiB that a container can write to its disk, with rootfs = "erofs" or "block"'),
  guest_dir: absolutePath
    .default('/var/lib/berth/guest')
    .describe('Where "berth vm build-guest" puts kernel and root file system'),
  vcpus: z.int().min(1).max(255).default(1).describe('Processors of a pod that has no CPU limit'),
  max_vcpus: z
    .int()
    .min(1)
    .max(255)
    .default(8)
    .describe('The most that any pod gets, if the node has as many'),
  memory: z
    .int()
    .min(64)
    .default(192)
    .describe(
      "MiB of a virtual machine for its kernel and agent, to which the pod's memory limits are added",
    ),
  default_memory: z.int().min(0).default(512).describe('MiB that are added for a pod without a memory limit'),
  max_memory: z.int().min(0).default(0).describe('MiB: the most that any pod gets; 0: what the node has'),
  network: z
    .enum(['tcfilter', 'macvtap'])
    .default('tcfilter')
    .describe("How the guest's network card is joined to the pod's interface"),
  channel: z
    .enum(['auto', 'vsock', 'virtio-serial'])
    .default('auto')
    .describe('How the agent in the guest is reached; "auto": vsock where the host has vhost-vsock'),
  boot_timeout: z
    .int()
    .min(1)
    .max(100)
    .default(60)
    .describe('Seconds that a virtual machine may take until its agent answers'),
});

const cadvisor = z.strictObject({
  enabled: z
    .boolean()
    .default(false)
    .describe(
      "Whether the kubelet's cAdvisor is told of containers as by CRI-O; their cgroups are named so, too",
    ),
  socket: absolutePath
    .max(107, 'must have at most 107 characters')
    .default('/var/run/crio/crio.sock')
    .describe('Where; cAdvisor knows no other place'),
});

/** The schema of config.toml; unknown keys are errors. */
export const configSchema = z.strictObject({
  listen: z
    .string()
    .regex(/^unix:\/\/\/.+/, 'must be unix:// and an absolute path, such as unix:///run/berth/berth.sock')
    .default('unix:///run/berth/berth.sock')
    .describe('Socket on which CRI is served'),
  root: absolutePath
    .default('/var/lib/berth')
    .describe('What outlives a reboot: images, records, writable layers'),
  state: absolutePath
    .default('/run/berth')
    .describe('What dies with a reboot: namespaces, bundles, exit files'),
  log_level: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
    .default('info')
    .describe('Least severe message that is logged'),
  default_runtime: z.string().regex(handlerName).default('runc').describe('Handler of pods that name none'),
  cgroup_driver: z
    .enum(['auto', 'systemd', 'cgroupfs'])
    .default('auto')
    .describe('Must be the kubelet\'s; "auto": systemd where systemd runs'),
  pinned_images: z
    .array(z.string())
    .default([])
    .describe('Globs of image names that garbage collection never removes'),
  seccomp_profile: absolutePath
    .default('/usr/share/containers/seccomp.json')
    .describe('The RuntimeDefault seccomp profile'),
  selinux: z.boolean().default(true).describe('Set SELinux labels where SELinux is enabled'),
  default_ulimits: z
    .array(z.string())
    .superRefine((entries, context) => {
      try {
        parseUlimits(entries);
      } catch (e: unknown) {
        context.addIssue({ code: 'custom', message: messageOf(e) });
      }
    })
    .default([])
    .describe("Resource limits of containers; those that are not named are berthd's own"),
  cdi_spec_dirs: z
    .array(absolutePath)
    .default(['/etc/cdi', '/var/run/cdi'])
    .describe('Where device plugins describe CDI devices; a later directory wins; read for each container'),
  conmon: absolutePath
    .default('/usr/bin/conmon')
    .describe("The monitor that owns a container's stdio, log and exit code"),
  pause: absolutePath
    .default('/usr/bin/catatonit')
    .describe(
      "The program that is the first process of a PID namespace that a pod's containers share, and reaps in it; run with -P",
    ),
  network: network.prefault({}).describe('Pod networking through CNI'),
  images: images.prefault({}).describe('Images and registries'),
  streaming: streaming.prefault({}).describe('The streaming server'),
  stats: stats.prefault({}).describe('Statistics of pods and containers'),
  metrics: metrics.prefault({}).describe("berthd's own metrics, and those of pods and containers"),
  cadvisor: cadvisor.prefault({}).describe('Names for the containers in the metrics of cAdvisor'),
  resource_view: resourceView
    .prefault({})
    .describe('What containers see of the machine, for handlers and pods that ask for it'),
  vm: vm.prefault({}).describe('Virtual machines, for handlers of type "vm"'),
  runtimes: z
    .record(z.string().regex(handlerName, 'must be a DNS label'), runtime)
    .default({ runc: { type: 'oci', path: '/usr/sbin/runc', allowed_annotations: [], resource_view: false } })
    .describe('Runtime handlers, by the name that a RuntimeClass uses'),
});

/** A checked configuration with all defaults filled in. */
export type Config = z.infer<typeof configSchema>;
/** One entry of `runtimes`. */
export type RuntimeConfig = Config['runtimes'][string];
