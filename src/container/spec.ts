import { close, constants, fstat, read } from 'node:fs';
import { hostname as nodeName } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { applyCdiEdits } from '../cdi/apply.ts';
import { requestedCdiDevices } from '../cdi/name.ts';
import { readCdiFiles } from '../cdi/read.ts';
import { resolveCdiDevices } from '../cdi/resolve.ts';
import type { CdiEdits } from '../cdi/schema.ts';
import { handlerConfig } from '../config/handler.ts';
import { BerthError, invalid, isErrno } from '../errors.ts';
import type { Image } from '../image/types.ts';
import type { MissingFeatures } from '../isolation/features.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { buildContainerSpec, type ContainerSpecInput } from '../spec/container.ts';
import { findDevices, hostDevices } from '../spec/devices.ts';
import { parseUlimits } from '../spec/rlimits.ts';
import { loadSeccomp } from '../spec/seccomp-load.ts';
import type { Spec } from '../spec/types.ts';
import { isAlive } from '../sys/process-identity.ts';
import { openInRoot } from '../sys/safe-path.ts';
import type { ContainerConfig, Mount } from './config.ts';
import { checkPropagation } from './propagation.ts';
import type { ContainerRecord } from './record.ts';
import { relabelVolumes } from './relabel.ts';

/** /etc/passwd and /etc/group of real images stay far below this; bytes. */
const MAX_ROOTFS_FILE = 8 * 1024 * 1024;

/** What a container asks of the node by name. */
type NodeParts = Pick<ContainerSpecInput, 'devices' | 'hostDevices' | 'seccomp' | 'apparmor' | 'missing'> & {
  cdiEdits: CdiEdits[];
};

/**
 * Finds what a container asks of the node, before anything is made for it.
 *
 * @throws BerthError naming the field: `invalid` for what the node does not have, `unimplemented` for what the
 * runtime handler cannot give, `precondition` for what cannot be found out
 */
export async function findNodeParts(
  s: Services,
  sandbox: SandboxRecord,
  config: ContainerConfig,
): Promise<NodeParts> {
  const sc = config.security;
  const cdiDevices = requestedCdiDevices(config);
  const missing = await s.features.missingIn(sandbox.runtimeHandler);
  refuseDevices(config.devices.length + cdiDevices.length, missing.host);
  const isOfNode = sandbox.config.security.namespaces.user.mode === 'node' && missing.host === undefined;
  const [apparmor, cdiFiles, devices, seccomp, resolved] = await Promise.all([
    s.apparmor.profileFor(sc, missing.host),
    cdiDevices.length > 0 ? readCdiFiles(s.config.cdi_spec_dirs) : { files: [], problems: [] },
    findDevices(config.devices),
    loadSeccomp(sc.seccomp, sc.privileged, 'config.linux.security_context.seccomp', s.config.seccomp_profile),
    // Device files of the node are of no use to ids that the node does not know.
    sc.privileged && isOfNode ? hostDevices() : [],
  ]);
  const cdiEdits = resolveCdiDevices(cdiDevices, cdiFiles);
  return { missing, apparmor, devices, hostDevices: resolved, seccomp, cdiEdits };
}

/**
 * Gathers the rest of what a container's spec is made from and builds it. The root file system must be mounted, the
 * sources of mounts must be there.
 *
 * @param mounts the config's, with the place of each image that is mounted
 */
export async function containerSpec(
  s: Services,
  sandbox: SandboxRecord,
  container: ContainerRecord,
  image: Image,
  { cdiEdits, ...nodeParts }: NodeParts,
  mounts: Mount[],
): Promise<Spec> {
  const config = { ...container.config, mounts };
  const files = s.paths.sandbox(sandbox.id);
  const { network, ipc, user } = sandbox.config.security.namespaces;
  const rootfs = s.paths.container(container.id).rootfs;
  await checkPropagation(config.mounts);
  await relabelVolumes(config.mounts, container.selinux?.mount);
  const spec = await buildContainerSpec({
    config,
    image: image.config,
    sandbox: { id: sandbox.id, config: sandbox.config },
    rootfs,
    cgroupsPath: container.cgroup.cgroupsPath,
    namespaces: {
      ...(network === 'pod'
        ? { net: join(files.namespaces, 'net'), uts: join(files.namespaces, 'uts') }
        : {}),
      ...(ipc === 'pod' ? { ipc: join(files.namespaces, 'ipc') } : {}),
      ...(user.mode === 'pod' ? { user: join(files.namespaces, 'user') } : {}),
      pid: pidNamespacePath(s, sandbox, container, nodeParts.missing),
    },
    files: {
      hosts: files.hosts,
      hostname: files.hostname,
      resolvConf: files.resolvConf,
      shm: ipc === 'pod' ? files.shm : '/dev/shm',
    },
    hostname: network === 'pod' ? sandbox.config.hostname : nodeName(),
    ...nodeParts,
    selinux: container.selinux ?? {},
    rlimits: parseUlimits(s.config.default_ulimits),
    allowedAnnotations: handlerConfig(s.config, sandbox.runtimeHandler)?.allowed_annotations ?? [],
    host: s.host,
    readRootfsFile: (path) => readRootfsFile(rootfs, path),
  });
  return applyCdiEdits(spec, cdiEdits, config.security.privileged);
}

/** @throws BerthError `unimplemented`: the container asks for devices that it cannot have */
function refuseDevices(count: number, why: string | undefined): void {
  if (count === 0 || why === undefined) return;
  throw new BerthError(
    'unimplemented',
    `config.devices: the node's are not possible with this runtime handler: ${why}`,
  );
}

/** The PID namespace to join: the pause container's, or that of the container to be debugged. */
function pidNamespacePath(
  s: Services,
  sandbox: SandboxRecord,
  { config }: ContainerRecord,
  missing: MissingFeatures,
): string | undefined {
  const { pid, targetId } = config.security.namespaces;
  if (pid === 'pod') return sandbox.pause === undefined ? undefined : `/proc/${sandbox.pause.pid}/ns/pid`;
  if (pid !== 'target') return undefined;
  const field = 'config.linux.security_context.namespace_options.target_id';
  const target = s.containers.get(targetId);
  if (target === undefined || target.sandboxId !== sandbox.id)
    throw invalid(field, 'no such container in this sandbox');
  if (target.init === undefined || target.exit !== undefined || !isAlive(target.init)) {
    throw new BerthError('precondition', `${field}: that container is not running`);
  }
  // The pod's processes have one number on this host, the machine's; berth's shim knows them by the container.
  if (missing.host !== undefined) return `container:${targetId}`;
  return `/proc/${target.init.pid}/ns/pid`;
}

const readFd = promisify(read);
const statFd = promisify(fstat);
const closeFd = promisify(close);

/** A file of the image, with links resolved inside it; undefined when there is none. */
async function readRootfsFile(rootfs: string, path: string): Promise<string | undefined> {
  let fd: number;
  try {
    fd = openInRoot(rootfs, path, constants.O_RDONLY);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return undefined;
    throw e;
  }
  try {
    const { size } = await statFd(fd);
    if (size > MAX_ROOTFS_FILE) throw new BerthError('exhausted', `the image's ${path} is larger than 8 MiB`);
    const { bytesRead, buffer } = await readFd(fd, Buffer.alloc(size), 0, size, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } finally {
    await closeFd(fd);
  }
}
