import { readFile, writeFile } from 'node:fs/promises';
import { cgroupName } from '../../cgroups/index.ts';
import { cgroupLeaf } from '../cadvisor/cgroup-leaf.ts';
import { BerthError, during, messageOf, notFound } from '../errors.ts';
import { newId } from '../id.ts';
import type { Image } from '../image/types.ts';
import { levelOf, type SelinuxLabels } from '../isolation/selinux.ts';
import { viewOf } from '../resource-view/view.ts';
import { type CreatedContainer, RuntimeCreateError } from '../runtime/handler.ts';
import { runtimeMessage } from '../runtime/oci/runtime.ts';
import { isReady, type SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { signalName, signalNumber } from '../signals.ts';
import { stringifyOci } from '../spec/json.ts';
import { validateContainerConfig } from '../spec/validate.ts';
import { identify } from '../sys/process-identity.ts';
import { differingFields } from '../util/differing-fields.ts';
import { nowNs } from '../util/nanoseconds.ts';
import type { ContainerConfig } from './config.ts';
import { makeDeclaredVolumes } from './declared-volumes.ts';
import { discardContainer } from './discard.ts';
import { watchContainer } from './exit.ts';
import { findImageVolumes, mountImageVolumes } from './image-volumes.ts';
import { containerLogPath, makeLogDirectory } from './log-path.ts';
import { makeMountSources } from './mount-sources.ts';
import { type ContainerRecord, containerKey } from './record.ts';
import { makeRootDisks } from './root-disks.ts';
import { mountRootfs } from './rootfs.ts';
import { containerSpec, findNodeParts } from './spec.ts';
import { runtimeOf } from './start.ts';

/**
 * CreateContainer: snapshot, OCI spec, monitor and the OCI runtime's `create`.
 *
 * A call with the name and attempt of one in flight joins it. What the OCI runtime itself refuses (a
 * command that does not exist, a mount that cannot be made) is not an error here: as with containerd the
 * container is CREATED, and StartContainer reports it, so that the pod shows a StartError with its code.
 *
 * @returns the container's id
 * @throws BerthError `invalid` naming the field, `notFound` for sandbox or image, `alreadyExists`
 */
export async function createContainer(
  s: Services,
  sandboxId: string,
  config: ContainerConfig,
): Promise<string> {
  const sandbox = s.sandboxes.require(sandboxId);
  if (!isReady(sandbox))
    throw new BerthError('precondition', 'the sandbox is not ready: it has been stopped');
  validateContainerConfig(config, sandbox.config);
  const selinux = await containerLabels(s, sandbox, config);
  const image = s.images.get(config.image.image);
  if (image === undefined) throw notFound(`image "${config.image.image}" (pull it first)`);
  const key = containerKey(sandboxId, config);
  const existing = [...s.containers.values()].find(
    (c) => c.phase !== 'removing' && containerKey(c.sandboxId, c.config) === key,
  );
  const running = s.creating.get(key);
  // One that is being made by nobody could not even be put on the to-do list; it is due for removal.
  const isAbandoned = existing?.phase === 'creating' && running === undefined;
  if (existing === undefined || isAbandoned) {
    return s.creating.run(key, () => create(s, sandbox, config, image, selinux));
  }
  refuseOther(existing, config);
  return running ?? existing.id;
}

async function containerLabels(
  s: Services,
  sandbox: SandboxRecord,
  { security }: ContainerConfig,
): Promise<SelinuxLabels> {
  const mount = sandbox.selinux?.mount;
  const { host: elsewhere } = await s.features.missingIn(sandbox.runtimeHandler);
  return await s.selinux.labels(security, 'config.linux.security_context.selinux_options', {
    ...(mount === undefined ? {} : { level: levelOf(mount) }),
    ...(elsewhere === undefined ? {} : { elsewhere }),
  });
}

/** @throws BerthError `alreadyExists` unless the container, made or in the making, is the one asked for */
function refuseOther(existing: ContainerRecord, config: ContainerConfig): void {
  const differing = differingFields(existing.config, config);
  if (differing.length === 0) return;
  const { name, attempt } = config.metadata;
  throw new BerthError(
    'alreadyExists',
    `container ${name} attempt ${attempt} exists with another ${differing.join(', ')}`,
  );
}

async function create(
  s: Services,
  sandbox: SandboxRecord,
  config: ContainerConfig,
  image: Image,
  selinux: SelinuxLabels,
): Promise<string> {
  const id = newId();
  const container: ContainerRecord = {
    id,
    sandboxId: sandbox.id,
    config,
    imageId: image.id,
    imageVolumes: findImageVolumes(s, config.mounts),
    createdAt: nowNs(),
    phase: 'creating',
    logPath: containerLogPath(s.paths.container(id), sandbox.config, config),
    cgroup: cgroupName({
      driver: s.cgroupDriver,
      parent: sandbox.config.cgroupParent,
      id,
      prefix: 'berth',
      leaf: cgroupLeaf(s.config),
    }),
    stopSignal: config.stopSignal ?? imageStopSignal(image),
    resources: config.resources,
    selinux,
  };
  s.containers.put(container);
  try {
    await s.faults.at('CreateContainer.recorded');
    const made = await make(s, sandbox, container, image);
    // The sandbox may have been stopped meanwhile; nobody would ever stop this container.
    if (!isReady(s.sandboxes.require(sandbox.id))) {
      throw new BerthError('precondition', 'the sandbox was stopped while the container was being created');
    }
    s.containers.update(id, { ...made, phase: 'live' });
  } catch (e: unknown) {
    // Its own failure must not hide the cause; what it leaves is on the to-do list.
    await discardContainer(s, id).catch((err: unknown) =>
      s.log.warn({ container: id, reason: messageOf(err) }, 'what was half made could not be taken down yet'),
    );
    throw e;
  }
  if (s.containers.require(id).createError === undefined) watchContainer(s, id);
  await s.faults.at('CreateContainer.live');
  return id;
}

/** What the image says that is no signal is the image's mistake, and no reason to never stop it. */
function imageStopSignal(image: Image): string {
  const number = signalNumber(image.config.stopSignal);
  return number === undefined ? 'SIGTERM' : signalName(number);
}

async function make(
  s: Services,
  sandbox: SandboxRecord,
  container: ContainerRecord,
  image: Image,
): Promise<Partial<ContainerRecord>> {
  const paths = s.paths.container(container.id);
  const nodeParts = await findNodeParts(s, sandbox, container.config);
  // Meanwhile, for a program is started; what it finds is asked for below, if things get that far.
  const sources = makeMountSources(container.config.mounts);
  sources.catch(() => {});
  await mountRootfs(s, sandbox, paths, image, container.selinux?.mount);
  await s.faults.at('CreateContainer.rootfs');
  const ofImages = await mountImageVolumes(s, sandbox, paths, container);
  const mounts = [...ofImages, ...(await makeDeclaredVolumes(sandbox, paths, image, ofImages))];
  await s.faults.at('CreateContainer.imageVolumes');
  await sources;
  const spec = await containerSpec(s, sandbox, container, image, nodeParts, mounts);
  const view = await viewOf(s, sandbox, container);
  spec.mounts.push(...view);
  // It holds the environment, and with it passwords.
  await writeFile(paths.spec, stringifyOci(spec), { mode: 0o600 });
  await s.faults.at('CreateContainer.spec');
  await makeLogDirectory(container.logPath);
  await s.faults.at('CreateContainer.log');
  const { uid, gid, additionalGids } = spec.process.user;
  const runtime = runtimeOf(s, container);
  const disks = runtime.rootDisks && (await makeRootDisks(s, runtime.rootDisks, paths, image));
  const made = {
    user: { uid, gid, supplementalGroups: additionalGids },
    ...(view.length > 0 ? { resourceView: true } : {}),
    ...(disks === undefined ? {} : { disk: { baseBytes: disks.baseBytes } }),
  };
  try {
    const started = await runtime.create(container, disks?.mounts);
    await s.faults.at('CreateContainer.monitor');
    return { ...made, ...identities(started) };
  } catch (e: unknown) {
    if (!(e instanceof RuntimeCreateError)) throw during('monitor', e);
    return { ...made, createError: await betterMessage(paths.runtimeLog, e.message) };
  }
}

function identities({ pid, monitorPid }: CreatedContainer): Partial<ContainerRecord> {
  const init = identify(pid);
  const conmon = identify(monitorPid);
  return { ...(init === undefined ? {} : { init }), ...(conmon === undefined ? {} : { conmon }) };
}

/** conmon passes on only the first bytes of the runtime's stderr; the runtime's log has the whole. */
async function betterMessage(runtimeLog: string, message: string): Promise<string> {
  const logged = runtimeMessage(await readFile(runtimeLog, 'utf8').catch(() => ''));
  return logged || message;
}
