import type { Resources } from '../../cgroups/types.ts';
import type { SelinuxLabels } from '../isolation/selinux.ts';
import type { IdMapping, NamespaceOptions, SandboxConfig } from '../sandbox/config.ts';
import { sandboxAnnotations } from './annotations.ts';
import { noCapabilities } from './capabilities.ts';
import type { HostFacts } from './host.ts';
import { type NamespacePaths, specNamespaces, userMappings } from './namespaces.ts';
import { oomScoreAdj } from './process.ts';
import { specResources } from './resources.ts';
import { resolveSeccomp, type SeccompProfile } from './seccomp.ts';
import { podSysctls } from './sysctl.ts';
import { OCI_VERSION, type Spec } from './types.ts';
import { checkId } from './user.ts';
import { checkMapped, isMapped } from './user-namespace.ts';

/** Dies last of a pod: without it the kernel would take the pod's PID namespace down (kubelet's figure). */
const PAUSE_OOM_SCORE_ADJ = -998;

/** The least that the kernel knows: the pause program sleeps. */
const PAUSE_CPU_SHARES = 2n;

/** Owner of the pause process when the pod names no user: nobody's id, the one of Kubernetes' pause image. */
const PAUSE_ID = 65_535;

const PAUSE_PATH = '/pause';

/** What the pause container's spec is made from. */
export interface SandboxSpecInput {
  id: string;
  config: SandboxConfig;
  /** Pinned namespaces; leave out those that the pod shares with the node. */
  namespaces: NamespacePaths;
  /** In the form that the OCI runtime expects for the cgroup driver in use. */
  cgroupsPath: string;
  /** Static program of the host that sleeps and reaps when called with `-P`. */
  pauseBinary: string;
  /** Absolute; a directory with mode 0755, empty at first: the OCI runtime makes mount points in it. */
  rootfs: string;
  /** Limits of the pause container itself, on top of its own small share of CPU. */
  resources?: Resources;
  host: HostFacts;
  /** Of the handler's configuration: globs of the pod's annotations that the OCI runtime gets. */
  allowedAnnotations: readonly string[];
  /** From `loadSeccomp`; undefined: no filter. */
  seccomp: SeccompProfile | undefined;
  selinux: SelinuxLabels;
}

/**
 * The spec of a pod's pause container: no capability, no writable file, no user of rank. It holds a PID
 * namespace of its own unless the pod uses the node's; whether containers join that is theirs to say.
 *
 * Throws `invalid` for sysctls that are not the pod's own and for ids out of range.
 */
export function buildSandboxSpec(input: SandboxSpecInput): Spec {
  const { config, host } = input;
  const { linux, ...pod } = podSpec(input);
  const sc = config.security;
  const field = 'config.linux.security_context';
  const { user: userns } = sc.namespaces;
  const uid =
    sc.runAsUser === undefined ? pauseId(userns, userns.uids) : checkId(sc.runAsUser, `${field}.run_as_user`);
  const gid =
    sc.runAsGroup === undefined
      ? pauseId(userns, userns.gids)
      : checkId(sc.runAsGroup, `${field}.run_as_group`);
  checkMapped({ uid, gid, additionalGids: [] }, userns);
  return {
    ...pod,
    process: {
      terminal: false,
      user: { uid, gid, additionalGids: [gid] },
      args: [PAUSE_PATH, '-P'],
      env: ['PATH=/'],
      cwd: '/',
      capabilities: noCapabilities(),
      noNewPrivileges: true,
      oomScoreAdj: oomScoreAdj(PAUSE_OOM_SCORE_ADJ, host.minOomScoreAdj),
      ...(input.selinux.process === undefined ? {} : { selinuxLabel: input.selinux.process }),
    },
    root: { path: input.rootfs, readonly: true },
    mounts: [
      // Writable, since the OCI runtime sets the sysctls through it; the paths below end that.
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'noexec', 'mode=755', 'size=64k'],
      },
      {
        destination: PAUSE_PATH,
        type: 'bind',
        source: input.pauseBinary,
        options: ['bind', 'rprivate', 'ro', 'nosuid', 'nodev'],
      },
    ],
    linux: {
      ...linux,
      cgroupsPath: input.cgroupsPath,
      resources: specResources(
        { cpuShares: PAUSE_CPU_SHARES, ...input.resources },
        [{ allow: false, access: 'rwm' }],
        host,
      ),
      ...(input.selinux.mount === undefined ? {} : { mountLabel: input.selinux.mount }),
      readonlyPaths: ['/proc/sys', '/proc/sysrq-trigger', '/proc/irq', '/proc/bus', '/proc/fs'],
      ...(input.seccomp ? { seccomp: resolveSeccomp(input.seccomp, [], host) } : {}),
    },
  };
}

/**
 * What an OCI runtime would be told of the pod itself, whether there is a pause container or not.
 *
 * @throws BerthError `invalid` for sysctls that are not the pod's own
 */
export function podSpec({
  id,
  config,
  namespaces,
  allowedAnnotations,
}: Pick<SandboxSpecInput, 'id' | 'config' | 'namespaces' | 'allowedAnnotations'>) {
  const { pid, user } = config.security.namespaces;
  const sysctl = podSysctls(config);
  return {
    ociVersion: OCI_VERSION,
    // Only with a UTS namespace of the pod's: setting it would otherwise rename the node.
    ...(namespaces.uts !== undefined && config.hostname !== '' ? { hostname: config.hostname } : {}),
    annotations: sandboxAnnotations(id, config, allowedAnnotations),
    linux: {
      namespaces: specNamespaces(namespaces, pid === 'node' ? 'node' : 'new', false),
      ...userMappings(user),
      ...(Object.keys(sysctl).length > 0 ? { sysctl } : {}),
    },
  };
}

/** A user namespace may be too small to have it; its root is nobody outside, too. */
function pauseId({ mode }: NamespaceOptions['user'], ids: readonly IdMapping[]): number {
  return mode === 'node' || isMapped(PAUSE_ID, ids) ? PAUSE_ID : 0;
}
