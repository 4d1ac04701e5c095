import { writeFile } from 'node:fs/promises';
import { hostname as nodeName } from 'node:os';
import { join } from 'node:path';
import { type CgroupName, cgroupName } from '../../cgroups/index.ts';
import { cgroupLeaf } from '../cadvisor/cgroup-leaf.ts';
import { handlerConfig } from '../config/handler.ts';
import { BerthError, during, invalid, messageOf } from '../errors.ts';
import { newId } from '../id.ts';
import type { SelinuxLabels } from '../isolation/selinux.ts';
import type { Attachment } from '../network/attachment.ts';
import type { RuntimeHandler } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import { stringifyOci } from '../spec/json.ts';
import { buildSandboxSpec } from '../spec/sandbox.ts';
import { loadSeccomp } from '../spec/seccomp-load.ts';
import { validateSandboxConfig } from '../spec/validate.ts';
import { identify, type ProcessIdentity } from '../sys/process-identity.ts';
import { differingFields } from '../util/differing-fields.ts';
import { nowNs } from '../util/nanoseconds.ts';
import type { SandboxConfig } from './config.ts';
import { discardSandbox } from './discard.ts';
import { labelSandboxFiles, ownSandboxFiles, writeHosts, writeSandboxFiles } from './files.ts';
import { needsPause, pinnedPaths, pinSandboxNamespaces } from './namespaces.ts';
import { watchPause } from './pause.ts';
import { isReady, type SandboxRecord, sandboxKey } from './record.ts';
import { setLateSysctls, setSysctls } from './sysctls.ts';

/**
 * RunPodSandbox: makes a pod's namespaces and network, and a pause container for those that need one.
 *
 * A call with the metadata of one in flight joins it; with that of a READY sandbox and the same
 * configuration it gets that one's id. A failure leaves nothing that holds the name.
 *
 * @returns the sandbox's id, once it is READY and its addresses are known
 * @throws BerthError `invalid` naming the field, `alreadyExists`, `unavailable` without a network
 */
export async function runPodSandbox(
  s: Services,
  config: SandboxConfig,
  runtimeHandler: string,
): Promise<string> {
  validateSandboxConfig(config);
  const runtime = s.runtimes.get(runtimeHandler);
  if (runtime === undefined) {
    const known = [...s.runtimes.keys()].filter((name) => name !== '').join(', ');
    throw invalid('runtime_handler', `no handler "${runtimeHandler}" is configured; there are: ${known}`);
  }
  await refuseMissing(s, config, runtimeHandler);
  const selinux = await sandboxLabels(s, config, runtimeHandler);
  const key = sandboxKey(config);
  const existing = [...s.sandboxes.values()].find(
    (r) => r.phase !== 'removing' && sandboxKey(r.config) === key,
  );
  const running = s.creating.get(key);
  // One that is being made by nobody could not even be put on the to-do list; it is due for removal.
  const isAbandoned = existing?.phase === 'creating' && running === undefined;
  if (existing === undefined || isAbandoned) {
    return s.creating.run(key, () => create(s, runtime, config, runtimeHandler, selinux));
  }
  refuseOther(existing, config, runtimeHandler);
  return running ?? existing.id;
}

/** @throws BerthError `unimplemented`: the pod asks for what its handler cannot do on this node */
async function refuseMissing(s: Services, config: SandboxConfig, runtimeHandler: string): Promise<void> {
  const missing = await s.features.missingIn(runtimeHandler);
  const { network, pid, ipc, user } = config.security.namespaces;
  const field = 'config.linux.security_context.namespace_options';
  const ofNode = Object.entries({ network, pid, ipc }).find(([, mode]) => mode === 'node')?.[0];
  if (missing.host !== undefined && ofNode !== undefined) {
    throw new BerthError(
      'unimplemented',
      `${field}.${ofNode}: the node's is not possible with this runtime handler: ${missing.host}`,
    );
  }
  const why = missing.userNamespaces;
  if (user.mode === 'node' || why === undefined) return;
  throw new BerthError(
    'unimplemented',
    `${field}.userns_options: no user namespaces with this runtime handler: ${why}`,
  );
}

async function sandboxLabels(
  s: Services,
  { security }: SandboxConfig,
  runtimeHandler: string,
): Promise<SelinuxLabels> {
  const taken = [...s.sandboxes.values()].flatMap(({ selinux }) => selinux?.mount ?? []);
  const { host: elsewhere } = await s.features.missingIn(runtimeHandler);
  return await s.selinux.labels(security, 'config.linux.security_context.selinux_options', {
    taken,
    ...(elsewhere === undefined ? {} : { elsewhere }),
  });
}

/** @throws BerthError `alreadyExists` unless the sandbox, made or in the making, is the one asked for */
function refuseOther(existing: SandboxRecord, config: SandboxConfig, runtimeHandler: string): void {
  const { name, namespace, attempt } = config.metadata;
  const what = `sandbox ${namespace}/${name} attempt ${attempt}`;
  if (existing.phase === 'live' && !isReady(existing)) {
    throw new BerthError('alreadyExists', `${what} exists and is not ready; remove it first`);
  }
  const differing = differingFields(existing.config, config);
  if (existing.runtimeHandler !== runtimeHandler) differing.push('runtime_handler');
  if (differing.length === 0) return;
  throw new BerthError('alreadyExists', `${what} exists with another ${differing.join(', ')}`);
}

async function create(
  s: Services,
  runtime: RuntimeHandler,
  config: SandboxConfig,
  runtimeHandler: string,
  selinux: SelinuxLabels,
): Promise<string> {
  const id = newId();
  const cgroup = nameCgroup(s, config.cgroupParent, id);
  // Before anything is waited for: the next call with this key must find it.
  s.sandboxes.put({
    id,
    config,
    runtimeHandler,
    createdAt: nowNs(),
    phase: 'creating',
    bootId: s.bootId,
    cgroup,
    madeCgroups: s.cgroups.missing(cgroup.parent),
    ips: [],
    selinux,
  });
  try {
    await s.faults.at('RunPodSandbox.recorded');
    const attachment = await prepareNetwork(s, id, config);
    s.sandboxes.update(id, { attachment });
    await s.faults.at('RunPodSandbox.prepared');
    const made = await make(s, runtime, id, config, cgroup, attachment);
    s.sandboxes.update(id, { ...made, ips: made.attachment?.ips ?? [], phase: 'live' });
  } catch (e: unknown) {
    // Its own failure must not hide the cause; what it leaves is on the to-do list.
    await discardSandbox(s, id).catch((err: unknown) =>
      s.log.warn({ sandbox: id, reason: messageOf(err) }, 'what was half made could not be taken down yet'),
    );
    throw e;
  }
  watchPause(s, id);
  await s.faults.at('RunPodSandbox.live');
  return id;
}

/** @throws BerthError `invalid`: the parent does not fit the driver. */
function nameCgroup(s: Services, parent: string, id: string): CgroupName {
  try {
    return cgroupName({ driver: s.cgroupDriver, parent, id, prefix: 'berth', leaf: cgroupLeaf(s.config) });
  } catch (e: unknown) {
    throw invalid('config.linux.cgroup_parent', (e as Error).message);
  }
}

async function prepareNetwork(
  s: Services,
  id: string,
  config: SandboxConfig,
): Promise<Attachment | undefined> {
  if (config.security.namespaces.network !== 'pod') return undefined;
  return s.cni.prepare({
    sandboxId: id,
    netnsPath: join(s.paths.sandbox(id).namespaces, 'net'),
    metadata: config.metadata,
    portMappings: config.portMappings,
    ...(config.dns === undefined ? {} : { dns: config.dns }),
    annotations: config.annotations,
    cgroupPath: config.cgroupParent,
  });
}

async function make(
  s: Services,
  runtime: RuntimeHandler,
  id: string,
  config: SandboxConfig,
  cgroup: CgroupName,
  attachment: Attachment | undefined,
): Promise<Partial<Pick<SandboxRecord, 'attachment' | 'pause'>>> {
  const paths = s.paths.sandbox(id);
  const { network } = config.security.namespaces;
  await writeSandboxFiles(paths, config, network === 'node' ? nodeName() : config.hostname);
  await s.faults.at('RunPodSandbox.files');
  await pinSandboxNamespaces(paths.namespaces, config);
  await s.faults.at('RunPodSandbox.namespaces');
  const made = needsPause(s.config, config, runtime)
    ? await addNetworkAndPause(s, runtime, id, config, cgroup, attachment)
    : await addNetworkAlone(s, id, config, attachment);
  await writeHosts(paths.hosts, config, made.attachment?.ips ?? []);
  await ownSandboxFiles(paths, config);
  labelSandboxFiles(paths, config, s.sandboxes.require(id).selinux?.mount);
  await s.faults.at('RunPodSandbox.hosts');
  return made;
}

/** The OCI runtime sets the sysctls where it makes a pause container. */
async function addNetworkAlone(
  s: Services,
  id: string,
  config: SandboxConfig,
  attachment: Attachment | undefined,
): Promise<{ attachment: Attachment | undefined }> {
  const pod = { id, config, namespaces: s.paths.sandbox(id).namespaces };
  // Before the network: what is set for interfaces in general is meant for the pod's, too.
  const late = await setSysctls(pod);
  const added = await addNetwork(s, attachment);
  await setLateSysctls(pod, late);
  return { attachment: added };
}

async function addNetworkAndPause(
  s: Services,
  runtime: RuntimeHandler,
  id: string,
  config: SandboxConfig,
  cgroup: CgroupName,
  attachment: Attachment | undefined,
): Promise<{ attachment: Attachment | undefined; pause: ProcessIdentity }> {
  // Both are waited for: undoing a failed one while the other still works would leave its result.
  const adding = addNetwork(s, attachment);
  const pause = () => startPause(s, runtime, id, config, cgroup);
  const [networked, paused] = await Promise.allSettled([
    adding,
    runtime.needsPause ? adding.then(pause) : pause(),
  ]);
  if (networked.status === 'rejected') throw networked.reason;
  if (paused.status === 'rejected') throw during('pause container', paused.reason);
  return { attachment: networked.value, pause: paused.value };
}

async function addNetwork(s: Services, attachment: Attachment | undefined): Promise<Attachment | undefined> {
  try {
    const added = attachment === undefined ? undefined : await s.cni.add(attachment);
    await s.faults.at('RunPodSandbox.network');
    return added;
  } catch (e: unknown) {
    throw during('network', e);
  }
}

async function startPause(
  s: Services,
  runtime: RuntimeHandler,
  id: string,
  config: SandboxConfig,
  cgroup: CgroupName,
): Promise<ProcessIdentity> {
  const paths = s.paths.sandbox(id);
  const sc = config.security;
  const spec = buildSandboxSpec({
    id,
    config,
    namespaces: pinnedPaths(paths.namespaces, config),
    cgroupsPath: cgroup.cgroupsPath,
    pauseBinary: s.config.pause,
    allowedAnnotations:
      handlerConfig(s.config, s.sandboxes.require(id).runtimeHandler)?.allowed_annotations ?? [],
    rootfs: paths.rootfs,
    host: s.host,
    selinux: s.sandboxes.require(id).selinux ?? {},
    seccomp: await loadSeccomp(
      sc.seccomp,
      sc.privileged,
      'config.linux.security_context.seccomp',
      s.config.seccomp_profile,
    ),
  });
  await writeFile(join(paths.dir, 'config.json'), stringifyOci(spec), { mode: 0o600 });
  const pid = await runtime.run(id, paths.dir, paths.pidFile);
  await s.faults.at('RunPodSandbox.pause');
  const identity = identify(pid);
  if (identity === undefined) throw new BerthError('internal', 'ended as soon as it had started');
  return identity;
}
