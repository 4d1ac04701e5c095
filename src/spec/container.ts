import type { ContainerConfig } from '../container/config.ts';
import { BerthError } from '../errors.ts';
import type { ImageConfig } from '../image/types.ts';
import type { MissingFeatures } from '../isolation/features.ts';
import type { SelinuxLabels } from '../isolation/selinux.ts';
import type { SandboxConfig } from '../sandbox/config.ts';
import { containerAnnotations } from './annotations.ts';
import { containerCapabilities } from './capabilities.ts';
import { type FoundDevice, planDevices } from './devices.ts';
import type { HostFacts } from './host.ts';
import { containerMounts, type SandboxFiles } from './mounts.ts';
import { type NamespacePaths, type PidNamespace, specNamespaces, userMappings } from './namespaces.ts';
import { oomScoreAdj, processArgs, processCwd, processEnv } from './process.ts';
import { specResources } from './resources.ts';
import { grantedRlimits } from './rlimits.ts';
import { resolveSeccomp, type SeccompProfile } from './seccomp.ts';
import { OCI_VERSION, type Process, type Rlimit, type Spec, type SpecDevice } from './types.ts';
import { type ReadRootfsFile, resolveUser } from './user.ts';
import { checkMapped } from './user-namespace.ts';

/** What images are built against, whatever the daemon's own is. */
const UMASK = 0o022;

/** What a container's spec is made from; everything that must be read from the host comes in here. */
export interface ContainerSpecInput {
  /** Mounts of images must have their `hostPath` filled in. */
  config: ContainerConfig;
  image: ImageConfig;
  sandbox: { id: string; config: SandboxConfig };
  /** Absolute path of the mounted snapshot. */
  rootfs: string;
  /** In the form that the OCI runtime expects for the cgroup driver in use. */
  cgroupsPath: string;
  /**
   * Pinned namespaces of the sandbox; leave out those that it shares with the node. `pid` is the file to
   * join with the modes `pod` (the pause container's) and `target` (that container's).
   */
  namespaces: NamespacePaths & { pid?: string | undefined };
  files: SandboxFiles;
  /** Name for the variable HOSTNAME: the pod's, or the node's. */
  hostname: string;
  /** From `findDevices`. */
  devices: FoundDevice[];
  /** From `hostDevices`; used by privileged containers only. */
  hostDevices: SpecDevice[];
  /** From `loadSeccomp`; undefined: no filter. */
  seccomp: SeccompProfile | undefined;
  /** From `AppArmor.profileFor`; undefined: none. */
  apparmor: string | undefined;
  selinux: SelinuxLabels;
  /** Of the node's configuration; those that it does not name are the daemon's own. */
  rlimits: readonly Rlimit[];
  /** Of the handler's configuration: globs of the annotations that the OCI runtime gets. */
  allowedAnnotations: readonly string[];
  /** What the pod's runtime handler cannot do. */
  missing: MissingFeatures;
  host: HostFacts;
  readRootfsFile: ReadRootfsFile;
}

/**
 * The spec of an ordinary container. Throws `invalid` naming the field of the request (or the part of
 * the image's config) that is wrong. `spec.process.user` is what ContainerStatus tells as the user.
 */
export async function buildContainerSpec(input: ContainerSpecInput): Promise<Spec> {
  const { config, host } = input;
  const sc = config.security;
  // On v1 a cgroup namespace would hide from a container the paths by which its tools find their limits.
  const ownCgroup = host.unifiedCgroups && !sc.privileged;
  const system = {
    privileged: sc.privileged,
    privilegedPod: input.sandbox.config.security.privileged,
    cgroupOptions: ownCgroup ? [] : host.cgroup2Options,
  };
  const plan = containerMounts(config.mounts, input.files, system, sc.readonlyRootfs, input.missing);
  const { devices, rules } = planDevices(input.devices, sc.privileged, input.hostDevices);
  const process = await containerProcess(input);
  const filter = sc.privileged ? undefined : input.seccomp;
  return {
    ociVersion: OCI_VERSION,
    process,
    root: { path: input.rootfs, readonly: sc.readonlyRootfs },
    mounts: plan.mounts,
    annotations: containerAnnotations(
      input.sandbox.id,
      input.sandbox.config,
      config.metadata.name,
      config.image.userSpecifiedImage || config.image.image,
      { annotations: config.annotations, allowed: input.allowedAnnotations },
    ),
    linux: {
      namespaces: specNamespaces(input.namespaces, pidNamespace(input), ownCgroup),
      ...userMappings(input.sandbox.config.security.namespaces.user),
      cgroupsPath: input.cgroupsPath,
      resources: specResources(config.resources, rules, host),
      ...(devices.length > 0 ? { devices } : {}),
      ...(filter ? { seccomp: resolveSeccomp(filter, process.capabilities.bounding, host) } : {}),
      ...(plan.rootfsPropagation ? { rootfsPropagation: plan.rootfsPropagation } : {}),
      ...(input.selinux.mount === undefined ? {} : { mountLabel: input.selinux.mount }),
      // The kubelet always sends the lists for its ProcMount setting, so an empty one is meant.
      maskedPaths: sc.privileged ? [] : sc.maskedPaths,
      readonlyPaths: sc.privileged ? [] : [...plan.readonlyPaths, ...sc.readonlyPaths],
    },
  };
}

async function containerProcess({ config, image, host, ...input }: ContainerSpecInput): Promise<Process> {
  const sc = config.security;
  const user = await resolveUser(sc, image.user, input.readRootfsFile);
  checkMapped(user, sc.namespaces.user);
  const rlimits = grantedRlimits(input.rlimits, host);
  return {
    terminal: config.tty,
    user: { ...user, umask: UMASK },
    args: processArgs(config, image),
    env: processEnv(config, image, input.hostname),
    cwd: processCwd(config, image),
    capabilities: containerCapabilities(sc.capabilities, sc.privileged, host.caps),
    noNewPrivileges: sc.noNewPrivs,
    oomScoreAdj: oomScoreAdj(Number(config.oomScoreAdj), host.minOomScoreAdj),
    ...(rlimits.length > 0 ? { rlimits } : {}),
    ...(input.apparmor === undefined ? {} : { apparmorProfile: input.apparmor }),
    ...(input.selinux.process === undefined ? {} : { selinuxLabel: input.selinux.process }),
  };
}

function pidNamespace({ config, sandbox, namespaces }: ContainerSpecInput): PidNamespace {
  const { pid } = config.security.namespaces;
  if (pid === 'container') return 'new';
  if (pid === 'node' || (pid === 'pod' && sandbox.config.security.namespaces.pid === 'node')) return 'node';
  if (namespaces.pid === undefined) {
    throw new BerthError('internal', `no PID namespace to join for the mode ${pid}`);
  }
  return { path: namespaces.pid };
}
